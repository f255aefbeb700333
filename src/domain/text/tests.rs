use super::*;

fn long(count: usize) -> String {
    "ä".repeat(count)
}

#[track_caller]
fn refuses<T: fmt::Debug>(result: Result<T, TextError>, sentence: &str) {
    assert_eq!(result.unwrap_err().to_string(), sentence);
}

#[test]
fn an_email_is_trimmed_and_lower_cased() {
    assert_eq!(Email::parse(" Ada.Love+x@Example.CO.uk \n").unwrap().as_str(), "ada.love+x@example.co.uk");
}

#[test]
fn an_email_needs_a_mailbox_and_a_domain_with_a_dot() {
    let sentence = "must be an e-mail address such as name@example.com";
    for text in [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@localhost",
        "ada@example..com",
        "ada@-example.com",
        "a da@example.com",
        ".ada@example.com",
        "ada.@example.com",
        "a@b@example.com",
        "ada@example.com\0",
        "\u{212A}@example.com",
        "ada@exämple.com",
        "<ada@example.com>",
    ] {
        refuses(Email::parse(text), sentence);
    }
    refuses(Email::parse(&format!("{}@example.com", "a".repeat(65))), sentence);
}

#[test]
fn an_email_has_at_most_254_characters() {
    let domain = format!("{0}.{0}.{0}.com", "d".repeat(61));
    let fits = format!("{}@{domain}", "a".repeat(64));
    assert_eq!(fits.len(), 254);
    assert!(Email::parse(&fits).is_ok());
    refuses(Email::parse(&format!("x{fits}")), "must be at most 254 characters");
}

#[test]
fn a_name_is_one_line_of_1_to_100_characters() {
    assert_eq!(PersonName::parse("  Ada 👩‍💻 ").unwrap().as_str(), "Ada 👩‍💻");
    assert!(PersonName::parse(&long(100)).is_ok());
    refuses(PersonName::parse(&long(101)), "must be 1 to 100 characters");
    refuses(PersonName::parse(" \t\n"), "must be 1 to 100 characters");
    for text in ["a\0b", "a\nb", "a\u{1b}[31mb", "a\u{85}b", "a\u{2028}b"] {
        refuses(PersonName::parse(text), "must not contain line breaks or control characters");
        refuses(WorkspaceName::parse(text), "must not contain line breaks or control characters");
    }
}

#[test]
fn a_status_may_be_empty() {
    assert_eq!(StatusText::parse("  ").unwrap().as_str(), "");
    assert!(StatusText::parse(&long(140)).is_ok());
    refuses(StatusText::parse(&long(141)), "must be at most 140 characters");
}

#[test]
fn a_description_keeps_its_line_breaks_and_blanks() {
    let text = " first\r\n\tsecond\n";
    assert_eq!(Description::parse(text).unwrap().as_str(), text);
    assert!(Description::parse("").is_ok());
    assert!(Description::parse(&long(2000)).is_ok());
    refuses(Description::parse(&long(2001)), "must be at most 2000 characters");
    assert!(Description::parse("a\0b").is_err());
}

#[test]
fn a_slug_is_lower_case_with_inner_hyphens() {
    for text in ["ab", "a1", "acme-inc", "a--b", "0-0"] {
        assert_eq!(Slug::parse(text).unwrap().as_str(), text);
    }
    assert!(Slug::parse(&"a".repeat(63)).is_ok());
    for text in ["", "a", "-ab", "ab-", "Acme", "a b", "a_b", "ü1", "a.b", "a\0", &"a".repeat(64)] {
        assert!(Slug::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_slug_made_from_a_name_is_a_slug() {
    for (name, expected) in [
        ("Acme Inc.", "acme-inc"),
        ("Zürich & Büro", "zurich-buro"),
        ("  --Ada's  team--  ", "adas-team"),
        ("ﬁnance № 7", "finance-no-7"),
        ("日本", "workspace"),
        ("日本 7", "workspace-7"),
        ("!!!", "workspace"),
    ] {
        let slug = Slug::from_name(&WorkspaceName::parse(name).unwrap());
        assert_eq!(slug.as_str(), expected);
        assert_eq!(Slug::parse(slug.as_str()), Ok(slug));
    }
    let cut = Slug::from_name(&WorkspaceName::parse(&format!("{} b", "a".repeat(62))).unwrap());
    assert_eq!(cut.as_str(), "a".repeat(62));
}

#[test]
fn a_slug_with_a_suffix_is_a_slug() {
    let slug = Slug::parse("acme").unwrap();
    assert_eq!(slug.with_suffix(2).as_str(), "acme-2");
    let longest = Slug::parse(&format!("{}-b", "a".repeat(61))).unwrap();
    let suffixed = longest.with_suffix(7);
    assert_eq!(suffixed.as_str(), format!("{}-7", "a".repeat(61)));
    let longest = Slug::parse(&"a".repeat(63)).unwrap().with_suffix(u32::MAX);
    assert!(Slug::parse(longest.as_str()).is_ok());
}

#[test]
fn an_avatar_is_an_http_url_kept_as_it_was_sent() {
    for text in ["https://example.com/a.png?s=1", "HTTP://example.com", "https://exämple.com/ü"] {
        assert_eq!(AvatarUrl::parse(text).unwrap().as_str(), text);
    }
    for text in [
        "",
        "example.com/a.png",
        "javascript://example.com/%0aalert(1)",
        "ftp://example.com/a",
        "https:example.com",
        "https://",
        "https:\\\\example.com",
        "https://user:pw@example.com/",
        "https://example.com/a b",
        "https://example.com/\0",
        "https://exa\nmple.com/",
    ] {
        refuses(AvatarUrl::parse(text), "must be an http or https URL");
    }
    let long = format!("https://example.com/{}", "a".repeat(2048));
    refuses(AvatarUrl::parse(&long), "must be at most 2048 characters");
}

#[test]
fn a_timezone_looks_like_one() {
    for text in
        ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "America/Port-au-Prince"]
    {
        assert_eq!(Timezone::parse(text).unwrap().as_str(), text);
    }
    for text in
        ["", "/", "Europe/", "Europe//Berlin", "+02:00", "a/b/c/d", "Euro pe", "UTC\0", &"a".repeat(65)]
    {
        assert!(Timezone::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_password_has_8_to_128_characters_and_keeps_its_blanks() {
    assert_eq!(Password::parse(" pass word ").unwrap().as_str(), " pass word ");
    assert!(Password::parse(&long(8)).is_ok());
    assert!(Password::parse(&long(128)).is_ok());
    refuses(Password::parse(&long(7)), "must be 8 to 128 characters");
    refuses(Password::parse(&long(129)), "must be 8 to 128 characters");
    refuses(Password::parse("12345678\0"), "must not contain NUL characters");
}

#[test]
fn a_password_does_not_show_itself() {
    let password = Password::parse("correct horse").unwrap();
    assert!(!format!("{password:?} {password:#?}").contains("horse"));
}

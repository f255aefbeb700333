//! Roles within a workspace. Says only how they compare; what each may do is decided elsewhere.

use serde::{Deserialize, Deserializer, de::Error as _};

use super::words::words;

words! {
    /// A member's role, from the least to the most powerful.
    Role {
        /// Reads.
        Guest = "guest",
        /// Reads and writes.
        Member = "member",
        /// Also manages members and the workspace.
        Admin = "admin",
        /// Also deletes the workspace. There is always at least one.
        Owner = "owner",
    }
}

impl Role {
    /// Whether this role may do what `least` may do.
    pub fn at_least(self, least: Self) -> bool {
        self >= least
    }
}

/// By hand: a derived one would take `{"owner": null}` too.
impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| D::Error::custom("must be guest, member, admin or owner"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_by_power() {
        assert!(Role::ALL.is_sorted());
        assert!(Role::Owner.at_least(Role::Admin));
        assert!(Role::Admin.at_least(Role::Admin));
        assert!(!Role::Guest.at_least(Role::Member));
    }

    #[test]
    fn a_role_has_one_name_in_text_and_json() {
        for &role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        assert_eq!(Role::parse("Owner"), None);
        assert_eq!(Role::parse(""), None);
    }
}

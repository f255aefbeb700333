//! Hexadecimal digits.

use std::fmt;

use uuid::Uuid;

/// Two digits for each byte. Without what formatting costs: entity tags and keys are made of them.
pub(crate) fn write_hex(bytes: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    for part in bytes.chunks(16) {
        // Those of a UUID are written all at once.
        let mut whole = [0; 16];
        whole.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        let mut digits = Uuid::encode_buffer();
        let digits = Uuid::from_bytes(whole).simple().encode_lower(&mut digits);
        out.write_str(digits.get(..2 * part.len()).unwrap_or_default())?;
    }
    Ok(())
}

/// The same by itself.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    // A string takes whatever is written to it.
    let _ = write_hex(bytes, &mut digits);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_two_digits() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in [0, 1, 4, 6, 16, 17, 32, 256] {
            let expected: String = bytes[..length].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex(&bytes[..length]), expected);
        }
    }
}

//! Pictures as they are posted: base64 of a JPEG or PNG file, in any of the spellings that
//! clients use.
//!
//! Accepted beside the plain form: `data:` URLs, white space inside, missing padding and the
//! URL-safe alphabet.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use thiserror::Error;

/// The text is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the text is not base64")]
pub struct Base64Error;

/// Padding is cut off before; bits that a sloppy encoder leaves after the last byte do no harm.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes of a posted file.
pub fn decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    let payload = strip_data_url(text.trim_start()).ok_or(Base64Error)?;
    let mut symbols: Vec<u8> = payload
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    while symbols.last() == Some(&b'=') {
        symbols.pop();
    }
    LENIENT.decode(symbols).map_err(|_| Base64Error)
}

/// A file as it is sent: the standard alphabet with padding.
pub fn encode(file: &[u8]) -> String {
    STANDARD.encode(file)
}

/// What follows `data:…;base64,`; text without a scheme is returned as it is.
fn strip_data_url(text: &str) -> Option<&str> {
    let has_scheme = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    if !has_scheme {
        return Some(text);
    }
    let (header, payload) = text.split_once(',')?;
    header.to_ascii_lowercase().trim_end().ends_with(";base64").then_some(payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_spellings_of_clients() {
        let good = [
            ("+/+/AA==", vec![0xfb, 0xff, 0xbf, 0]),
            ("-_-_AA", vec![0xfb, 0xff, 0xbf, 0]),
            ("+/+/AA", vec![0xfb, 0xff, 0xbf, 0]),
            (" +/+\r\n/A\tA == ", vec![0xfb, 0xff, 0xbf, 0]),
            ("data:image/png;base64,+/+/AA==", vec![0xfb, 0xff, 0xbf, 0]),
            ("DATA:image/jpeg;charset=x;BASE64, +/+/AA", vec![0xfb, 0xff, 0xbf, 0]),
            ("U2Vjb25kIGltYWdl", b"Second image".to_vec()),
            ("", vec![]),
        ];
        for (text, bytes) in good {
            assert_eq!(decode(text), Ok(bytes), "{text:?}");
        }
        for bad in ["A", "A=A=", "!!!!", "data:image/png,AAAA", "data:;base64", "é", "AAAA\0AAA"] {
            assert_eq!(decode(bad), Err(Base64Error), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn files_come_back(file: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&file)), Ok(file));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = decode(&text);
        }
    }
}

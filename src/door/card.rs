//! The frames that a Wiegand output sends for a person. Pure.
//!
//! The numbers come from the person's metadata, `card_number` and `facility_code`, never from the
//! face: who manages the cards decides what a controller gets to see. A frame is its data bits, the
//! most significant first, between two parity bits: the first makes the first half even, the last
//! makes the second half odd.
//!
//! | bits | facility | card | first parity | last parity |
//! |---|---|---|---|---|
//! | 26 (H10301) | 8 bits | 16 bits | even, data bits 1 to 12 | odd, data bits 13 to 24 |
//! | 34 | 16 bits | 16 bits | even, data bits 1 to 16 | odd, data bits 17 to 32 |

use std::collections::BTreeMap;

use thiserror::Error;

/// Metadata key of the card number.
pub const CARD_NUMBER: &str = "card_number";
/// Metadata key of the facility code.
pub const FACILITY_CODE: &str = "facility_code";
/// Bits of a card number in both formats.
const CARD_BITS: u32 = 16;

/// A layout of the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CardFormat {
    /// H10301.
    Bits26,
    /// 34 bits.
    Bits34,
}

/// What a controller reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Card {
    format: CardFormat,
    facility: u32,
    number: u32,
}

/// Why there is no frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CardError {
    /// The person has no card, so nothing is sent.
    #[error("the person's metadata hold no `{CARD_NUMBER}`")]
    NoCard,
    /// A value that the format has no room for.
    #[error("`{key}` of the person's metadata must be a whole number from {min} to {max}")]
    OutOfRange {
        /// The metadata key.
        key: &'static str,
        /// Least value.
        min: u32,
        /// Greatest value.
        max: u32,
    },
    /// Not 26 and not 34.
    #[error("there is no Wiegand frame of {0} bits: 26 or 34")]
    NoFormat(u8),
}

impl CardFormat {
    /// The format of so many bits.
    pub fn of_bits(bits: u8) -> Result<Self, CardError> {
        match bits {
            26 => Ok(Self::Bits26),
            34 => Ok(Self::Bits34),
            other => Err(CardError::NoFormat(other)),
        }
    }

    /// The greatest facility code.
    pub const fn facility_max(self) -> u32 {
        (1 << self.facility_bits()) - 1
    }

    const fn facility_bits(self) -> u32 {
        match self {
            Self::Bits26 => 8,
            Self::Bits34 => 16,
        }
    }
}

impl Card {
    /// The card of a person; `facility` is that of people whose metadata name none.
    pub fn of(
        metadata: &BTreeMap<String, String>,
        format: CardFormat,
        facility: u32,
    ) -> Result<Self, CardError> {
        let number = metadata.get(CARD_NUMBER).ok_or(CardError::NoCard)?;
        let facility = match metadata.get(FACILITY_CODE) {
            Some(text) => read(FACILITY_CODE, text, format.facility_max())?,
            None => within(FACILITY_CODE, facility, format.facility_max())?,
        };
        Ok(Self { format, facility, number: read(CARD_NUMBER, number, CARD_MAX)? })
    }

    /// The bits of the frame, the first one first.
    pub fn frame(self) -> Vec<bool> {
        let data = u64::from(self.facility) << CARD_BITS | u64::from(self.number);
        let bits = self.format.facility_bits() + CARD_BITS;
        let data: Vec<bool> = (0..bits).rev().map(|bit| data >> bit & 1 == 1).collect();
        let (first, last) = data.split_at(data.len() / 2);
        let mut frame = vec![is_odd(first)];
        frame.extend(&data);
        frame.push(!is_odd(last));
        frame
    }
}

const CARD_MAX: u32 = (1 << CARD_BITS) - 1;

fn read(key: &'static str, text: &str, max: u32) -> Result<u32, CardError> {
    let text = text.trim();
    // `parse` alone would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    within(key, number.ok_or(CardError::OutOfRange { key, min: 0, max })?, max)
}

fn within(key: &'static str, number: u32, max: u32) -> Result<u32, CardError> {
    if number <= max { Ok(number) } else { Err(CardError::OutOfRange { key, min: 0, max }) }
}

fn is_odd(bits: &[bool]) -> bool {
    bits.iter().filter(|bit| **bit).count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect()
    }

    fn shown(frame: &[bool]) -> String {
        frame.iter().map(|bit| if *bit { '1' } else { '0' }).collect()
    }

    /// What a controller makes of a frame: facility and number, unless a parity is wrong.
    fn decode(frame: &[bool]) -> Option<(u64, u64)> {
        let half = frame.len() / 2;
        let ones = |bits: &[bool]| bits.iter().filter(|bit| **bit).count();
        if ones(&frame[..half]) % 2 != 0 || ones(&frame[half..]) % 2 != 1 {
            return None;
        }
        let value = |bits: &[bool]| bits.iter().fold(0, |sum, bit| sum * 2 + u64::from(*bit));
        let (facility, number) = frame[1..frame.len() - 1].split_at(frame.len() - 2 - 16);
        Some((value(facility), value(number)))
    }

    #[test]
    fn worked_examples() {
        use CardFormat::{Bits26, Bits34};
        for (format, facility, number, frame) in [
            (Bits26, "0", "0", "0 00000000 0000000000000000 1"),
            (Bits26, "0", "1", "0 00000000 0000000000000001 0"),
            // Facility 123 holds six ones and the upper four bits of 4567 one: the first half is odd.
            (Bits26, "123", "4567", "1 01111011 0001000111010111 0"),
            (Bits26, "255", "65535", "0 11111111 1111111111111111 1"),
            (Bits26, "128", "32768", "0 10000000 1000000000000000 1"),
            (Bits34, "0", "0", "0 0000000000000000 0000000000000000 1"),
            // 1234 holds five ones, 4567 eight.
            (Bits34, "1234", "4567", "1 0000010011010010 0001000111010111 1"),
            (Bits34, "65535", "65535", "0 1111111111111111 1111111111111111 1"),
        ] {
            let read = metadata(&[(CARD_NUMBER, number), (FACILITY_CODE, facility)]);
            let card = Card::of(&read, format, 0).unwrap();
            assert_eq!(shown(&card.frame()), frame.replace(' ', ""), "{facility}/{number}");
        }
    }

    #[test]
    fn errors_name_the_key_and_the_range() {
        use CardFormat::{Bits26, Bits34};
        let told = |pairs: &[(&str, &str)], format| {
            Card::of(&metadata(pairs), format, 7).map_err(|error| error.to_string())
        };
        assert_eq!(told(&[], Bits26), Err("the person's metadata hold no `card_number`".into()));
        let range = "of the person's metadata must be a whole number from 0 to";
        for text in ["65536", "-1", "+1", "", "0x10", "1.0", "99999999999999999999", "٣"] {
            let expected = format!("`card_number` {range} 65535");
            assert_eq!(told(&[(CARD_NUMBER, text)], Bits34), Err(expected), "{text}");
        }
        let both = [(CARD_NUMBER, " 5 "), (FACILITY_CODE, "256")];
        assert_eq!(told(&both, Bits26), Err(format!("`facility_code` {range} 255")));
        let expected = Card { format: Bits34, facility: 256, number: 5 };
        assert_eq!(told(&both, Bits34), Ok(expected));
        assert_eq!(told(&both[..1], Bits26).map(|card| card.facility), Ok(7), "the door's own");
        let wrong_door = Card::of(&metadata(&both[..1]), Bits26, 300);
        assert_eq!(wrong_door, Err(CardError::OutOfRange { key: FACILITY_CODE, min: 0, max: 255 }));
        assert_eq!(CardFormat::of_bits(26), Ok(Bits26));
        assert_eq!(CardFormat::of_bits(34), Ok(Bits34));
        assert_eq!(CardFormat::of_bits(37), Err(CardError::NoFormat(37)));
    }

    proptest! {
        #[test]
        fn frames_are_read_back_and_a_flipped_bit_is_noticed(
            wide in any::<bool>(),
            facility in any::<u16>(),
            number in any::<u16>(),
            flipped in 0_usize..34,
        ) {
            let format = if wide { CardFormat::Bits34 } else { CardFormat::Bits26 };
            let facility = u32::from(facility) & format.facility_max();
            let number = number.to_string();
            let card = Card::of(&metadata(&[(CARD_NUMBER, &number)]), format, facility).unwrap();
            let mut frame = card.frame();
            prop_assert_eq!(frame.len(), if wide { 34 } else { 26 });
            prop_assert_eq!(decode(&frame), Some((facility.into(), number.parse().unwrap())));
            let flipped = flipped % frame.len();
            frame[flipped] = !frame[flipped];
            prop_assert_eq!(decode(&frame), None);
        }
    }
}

/// The largest variable byte integer (MQTT 5.0 §1.5.5).
pub(crate) const MAX: u32 = 268_435_455;

/// A variable byte integer at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Varint {
    /// The value and how many bytes it takes.
    Value(u32, usize),
    /// The bytes end before it does.
    Incomplete,
    /// Longer than four bytes, or not in its shortest form [MQTT-1.5.5-1].
    Invalid,
}

#[inline]
pub(crate) fn read(bytes: &[u8]) -> Varint {
    if let Some(&byte @ 0..0x80) = bytes.first() {
        return Varint::Value(u32::from(byte), 1);
    }
    let mut value = 0;
    for (i, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return if byte == 0 && i > 0 { Varint::Invalid } else { Varint::Value(value, i + 1) };
        }
    }
    if bytes.len() < 4 { Varint::Incomplete } else { Varint::Invalid }
}

/// How many bytes it takes, for values up to [`MAX`].
#[inline]
pub(crate) const fn len(value: usize) -> usize {
    match value {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

/// The bytes of a value up to [`MAX`], and how many of them count.
pub(crate) const fn bytes(value: usize) -> ([u8; 4], usize) {
    let length = len(value);
    let value = value as u32;
    let spread = value & 0x7f | (value & 0x7f << 7) << 1 | (value & 0x7f << 14) << 2 | (value & 0x7f << 21) << 3;
    // All but the last say that another one follows.
    let more = 0x0080_8080 & ((1 << (8 * (length - 1))) - 1);
    ((spread | more).to_le_bytes(), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_borders_of_the_specification_table_round_trip() {
        for (value, want) in
            [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_151, 3), (2_097_152, 4), (MAX, 4)]
        {
            let (out, length) = bytes(value as usize);
            assert_eq!(length, want);
            assert_eq!(read(&out[..length]), Varint::Value(value, length));
            for cut in 0..length {
                assert_eq!(read(&out[..cut]), Varint::Incomplete);
            }
        }
    }

    #[test]
    fn padded_and_overlong_forms_are_invalid() {
        for bad in [
            &[0x80, 0x00][..],
            &[0xff, 0x00],
            &[0x80, 0x80, 0x00],
            &[0x80, 0x80, 0x80, 0x00],
            &[0x80, 0x80, 0x80, 0x80, 0x01],
            &[0xff; 4],
        ] {
            assert_eq!(read(bad), Varint::Invalid, "{bad:x?}");
        }
    }

    /// Every sequence of up to three bytes is either incomplete, invalid, or the one encoding of its value.
    #[test]
    fn what_is_accepted_is_the_one_encoding() {
        for raw in 0..1_u32 << 24 {
            let raw = &raw.to_be_bytes()[1..];
            if let Varint::Value(value, length) = read(raw) {
                let (out, want) = bytes(value as usize);
                assert_eq!((&out[..want], want), (&raw[..length], length));
            }
        }
    }
}

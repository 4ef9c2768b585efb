use super::*;
use proptest::prelude::*;

const MAX: u64 = 1 << 20;
const MASK: [u8; 4] = [0xA5, 0x01, 0x7E, 0xFF];

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ MASK[i % 4]));
    bytes
}

fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let n = decoder.decode(&mut bytes);
    bytes.truncate(n);
    bytes
}

fn answer(decoder: &mut Decoder) -> Vec<u8> {
    let mut out = Vec::new();
    decoder.answer(&mut out);
    out
}

#[test]
fn binary_frames_of_every_length_form_give_their_payload() {
    for len in [0, 1, 3, 4, 125, 126, 127, 0xFFFF, 0x1_0000, 0x1_0001] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let mut decoder = Decoder::new(MAX);
        assert_eq!(decode(&mut decoder, &frame(0x82, &payload)), payload, "{len}");
        assert_eq!(decoder.end(), None);
    }
}

#[test]
fn the_masked_example_of_the_rfc_is_unmasked() {
    // RFC 6455 §5.7, with the opcode of a binary frame.
    let mut decoder = Decoder::new(MAX);
    let bytes = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(&mut decoder, &bytes), b"Hello");
}

#[test]
fn fragments_with_control_frames_between_give_one_stream() {
    let mut decoder = Decoder::new(MAX);
    let bytes = [frame(0x02, b"ab"), frame(0x89, b"ping"), frame(0x00, b""), frame(0x80, b"cd"), frame(0x82, b"ef")];
    assert_eq!(decode(&mut decoder, &bytes.concat()), b"abcdef");
    assert_eq!(answer(&mut decoder), b"\x8A\x04ping");
}

#[test]
fn only_the_last_of_many_pings_is_answered() {
    let mut decoder = Decoder::new(MAX);
    let pings: Vec<u8> = (0..100u8).flat_map(|i| frame(0x89, &[i])).collect();
    assert_eq!(decode(&mut decoder, &pings), b"");
    assert_eq!(answer(&mut decoder), [0x8A, 1, 99]);
    assert_eq!(answer(&mut decoder), b"");
}

#[test]
fn a_pong_that_nobody_asked_for_is_ignored() {
    let mut decoder = Decoder::new(MAX);
    assert_eq!(decode(&mut decoder, &[frame(0x8A, b"x"), frame(0x82, b"y")].concat()), b"y");
    assert_eq!(answer(&mut decoder), b"");
}

#[test]
fn a_close_is_answered_with_its_code_and_ends_the_stream() {
    for (payload, code) in [
        (&b""[..], 1000u16),
        (b"\x03\xE8", 1000),
        (b"\x03\xE9bye", 1001),
        (b"\x0F\xA0", 4000),
        (b"\x03\xED", 1002), // 1005 must not stand in a frame
        (b"\x00\x00", 1002),
    ] {
        let mut decoder = Decoder::new(MAX);
        let bytes = [frame(0x82, b"a"), frame(0x89, b"p"), frame(0x88, payload), frame(0x82, b"b")].concat();
        assert_eq!(decode(&mut decoder, &bytes), b"a");
        assert_eq!(decoder.end(), Some(End::Closed));
        assert_eq!(answer(&mut decoder), [0x88, 2, (code >> 8) as u8, code as u8]);
        assert_eq!(answer(&mut decoder), b"", "one answer, and no pong after it");
    }
}

#[test]
fn bad_frames_end_the_stream_with_the_code_that_says_why() {
    let long = |head: &[u8]| [head, &MASK[..]].concat();
    let too_big = (MAX + 1).to_be_bytes();
    for (bytes, error, code) in [
        (frame(0x81, b"text"), FrameError::Text, 1003),
        (b"\x82\x01x".to_vec(), FrameError::Unmasked, 1002),
        (frame(0xC2, b"rsv1"), FrameError::Reserved, 1002),
        (frame(0xA2, b"rsv2"), FrameError::Reserved, 1002),
        (frame(0x92, b"rsv3"), FrameError::Reserved, 1002),
        (frame(0x83, b"opcode"), FrameError::Reserved, 1002),
        (frame(0x8B, b"opcode"), FrameError::Reserved, 1002),
        (frame(0x80, b"continues nothing"), FrameError::Fragment, 1002),
        ([frame(0x02, b""), frame(0x82, b"within")].concat(), FrameError::Fragment, 1002),
        (frame(0x09, b"fragmented ping"), FrameError::Control, 1002),
        (frame(0x89, &[0; 126]), FrameError::Control, 1002),
        (frame(0x88, b"x"), FrameError::Control, 1002),
        (long(b"\x82\xFE\x00\x7D"), FrameError::Length, 1002),
        (long(b"\x82\xFF\x00\x00\x00\x00\x00\x00\xFF\xFF"), FrameError::Length, 1002),
        (long(&[&b"\x82\xFF"[..], &too_big].concat()), FrameError::TooBig(MAX + 1), 1009),
        (long(b"\x82\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), FrameError::TooBig(u64::MAX), 1009),
    ] {
        let mut decoder = Decoder::new(MAX);
        let good = frame(0x82, b"good");
        assert_eq!(decode(&mut decoder, &[good, bytes].concat()), b"good", "{error}");
        assert_eq!(decoder.end(), Some(End::Failed(error)));
        assert_eq!(answer(&mut decoder), [&[0x88, 2][..], &u16::to_be_bytes(code)].concat(), "{error}");
        assert_eq!(decode(&mut decoder, &frame(0x82, b"after the end")), b"");
    }
}

#[test]
fn what_we_send_has_the_shortest_header() {
    assert_eq!(binary_header(0), ([0x82, 0, 0, 0], 2));
    assert_eq!(binary_header(125), ([0x82, 125, 0, 0], 2));
    assert_eq!(binary_header(126), ([0x82, 126, 0, 126], 4));
    assert_eq!(binary_header(0xFFFF), ([0x82, 126, 0xFF, 0xFF], 4));
}

proptest! {
    #[test]
    fn any_cut_into_messages_fragments_and_reads_gives_the_same_bytes(
        parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<bool>(), any::<bool>()), 1..12),
        reads in prop::collection::vec(1usize..40, 1..20),
    ) {
        let (mut wire, mut expected, mut within) = (Vec::new(), Vec::new(), false);
        for (payload, last, ping) in parts {
            let opcode = if within { 0x00 } else { 0x02 };
            wire.extend(frame(opcode | if last { 0x80 } else { 0 }, &payload));
            within = !last;
            if ping {
                wire.extend(frame(0x89, &payload[..payload.len().min(125)]));
            }
            expected.extend(payload);
        }
        let mut decoder = Decoder::new(MAX);
        let (mut got, mut rest) = (Vec::new(), wire.as_slice());
        for read in reads.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(read.min(rest.len()));
            got.extend(decode(&mut decoder, now));
            rest = later;
        }
        prop_assert_eq!(got, expected);
        prop_assert_eq!(decoder.end(), None);
    }

    #[test]
    fn no_bytes_make_it_panic_or_grow(reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
        let mut decoder = Decoder::new(MAX);
        for read in reads {
            prop_assert!(decode(&mut decoder, &read).len() <= read.len());
            prop_assert!(decoder.control.len() <= 125);
        }
    }
}

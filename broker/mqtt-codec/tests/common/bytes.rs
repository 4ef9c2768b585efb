//! A small notation for packets in tables.

/// The bytes of a packet from its notation, blanks between the parts:
///
/// - `0a1b`: these bytes
/// - `'text'`: a UTF-8 encoded string, its length in front
/// - `|`: the Remaining Length of what follows
/// - `< … >`: a property block, its length in front
pub(crate) fn bytes(notation: &str) -> Vec<u8> {
    let mut stack: Vec<(&str, Vec<u8>)> = vec![("", Vec::new())];
    for part in notation.split_ascii_whitespace() {
        match part {
            "|" | "<" => stack.push((part, Vec::new())),
            ">" => close(&mut stack),
            text if text.starts_with('\'') => {
                let text = text.trim_matches('\'');
                let out = &mut stack.last_mut().unwrap().1;
                out.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            hex => {
                assert!(hex.len() % 2 == 0, "{hex} in {notation}");
                let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap_or_else(|_| panic!("{hex} in {notation}"));
                stack.last_mut().unwrap().1.extend((0..hex.len()).step_by(2).map(byte));
            }
        }
    }
    while stack.len() > 1 {
        close(&mut stack);
    }
    stack.remove(0).1
}

fn close(stack: &mut Vec<(&str, Vec<u8>)>) {
    let (_, inner) = stack.pop().unwrap();
    let out = &mut stack.last_mut().unwrap().1;
    let mut length = inner.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap();
        length >>= 7;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend(inner);
}

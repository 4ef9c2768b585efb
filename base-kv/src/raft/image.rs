use super::codec::Applied;
use super::state_machine::Machine;
use base_kv_api::{KvError, Visit};
use base_types::wire::{Reader, put_prefixed};
use bytes::Bytes;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A snapshot of a replica: a file, or the replica itself, from which a file can be made.
///
/// Making a snapshot in order to purge the log writes nothing but the memtable: this is `Live`. Only who sends one asks for
/// the file, which holds what the replica has applied at that moment, or more than the snapshot's metadata says.
///
/// The file: magic, then blocks `length(4) crc32(4) bytes`, the first the applied state, the others pairs of length-prefixed
/// keys and values in key order, the last empty. It belongs to no engine and to no slot.
#[derive(Clone)]
pub(crate) enum Image {
    Live(Arc<Machine>),
    /// As it was received, complete and synced.
    File(PathBuf),
}

const MAGIC: &[u8; 8] = b"hermod-1";
const BLOCK: usize = 64 << 10;

fn failed(error: impl std::fmt::Display) -> KvError {
    KvError { doing: "write or read a snapshot", cause: error.to_string() }
}

impl Image {
    /// Makes the file, complete and synced.
    pub(crate) fn write_to(&self, path: &Path) -> Result<(), KvError> {
        let machine = match self {
            Self::File(own) => return link(own, path).map_err(failed),
            Self::Live(machine) => machine,
        };
        let mut out = BufWriter::new(File::create(path).map_err(failed)?);
        out.write_all(MAGIC).map_err(failed)?;
        machine.view(&mut |applied, keys| {
            put_block(&mut out, &applied.encode())?;
            let mut block = Vec::with_capacity(BLOCK);
            let mut broken = Ok(());
            keys.each(&mut |key, value| {
                put_prefixed(&mut block, key);
                put_prefixed(&mut block, value);
                if block.len() >= BLOCK {
                    broken = put_block(&mut out, &block);
                    block.clear();
                }
                if broken.is_ok() { Visit::More } else { Visit::Enough }
            })?;
            broken?;
            if !block.is_empty() {
                put_block(&mut out, &block)?;
            }
            put_block(&mut out, b"")
        })?;
        out.into_inner().map_err(failed)?.sync_all().map_err(failed)
    }
}

/// Gives a file a second name, for good.
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => std::fs::hard_link(from, to)?,
    }
    to.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn put_block(out: &mut impl Write, bytes: &[u8]) -> Result<(), KvError> {
    let length = u32::try_from(bytes.len()).map_err(failed)?;
    let head = [length.to_be_bytes(), crc32(bytes).to_be_bytes()].concat();
    out.write_all(&head).and_then(|()| out.write_all(bytes)).map_err(failed)
}

fn block(input: &mut impl Read) -> Result<Bytes, KvError> {
    let mut head = [0; 8];
    input.read_exact(&mut head).map_err(failed)?;
    let [a, b, c, d, e, f, g, h] = head;
    let mut bytes = Vec::new();
    let length = u64::from(u32::from_be_bytes([a, b, c, d]));
    let read = input.take(length).read_to_end(&mut bytes).map_err(failed)?;
    if read as u64 != length || crc32(&bytes) != u32::from_be_bytes([e, f, g, h]) {
        return Err(failed("a block is damaged"));
    }
    Ok(bytes.into())
}

type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), KvError>;

/// Reads a file: its applied state, and its pairs to `each`. Damage anywhere is an error; read once without acting first.
pub(crate) fn read_image(path: &Path, each: Each<'_>) -> Result<Applied, KvError> {
    let mut input = BufReader::new(File::open(path).map_err(failed)?);
    let mut magic = [0; 8];
    input.read_exact(&mut magic).map_err(failed)?;
    if &magic != MAGIC {
        return Err(failed("this is not a snapshot of this format"));
    }
    let applied = Applied::decode(block(&mut input)?).map_err(failed)?;
    loop {
        let pairs = block(&mut input)?;
        if pairs.is_empty() {
            return Ok(applied);
        }
        let mut r = Reader::new(pairs);
        while !r.is_empty() {
            let (key, value) = (r.prefixed().map_err(failed)?, r.prefixed().map_err(failed)?);
            each(&key, &value)?;
        }
    }
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// CRC-32 as of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_the_common_one() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}

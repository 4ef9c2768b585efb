use super::*;
use crate::FrameError;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const MASK: [u8; 4] = [1, 2, 3, 4];

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | payload.len() as u8];
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ MASK[i % 4]));
    bytes
}

fn pair(capacity: usize) -> (WsStream<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(capacity);
    (WsStream::new(ours, Vec::new(), 1 << 20), theirs)
}

async fn read(stream: &mut WsStream<DuplexStream>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let n = stream.read(&mut bytes).await?;
    bytes.truncate(n);
    Ok(bytes)
}

#[tokio::test]
async fn the_slices_of_one_write_are_one_frame() {
    let (mut ws, mut peer) = pair(1024);
    let slices = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cd"), IoSlice::new(b"e")];
    assert_eq!(ws.write_vectored(&slices).await.unwrap(), 5);
    let mut got = [0; 7];
    peer.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"\x82\x05abcde");
}

#[tokio::test]
async fn a_frame_that_the_socket_takes_in_parts_is_finished_before_anything_else() {
    let (mut ws, mut peer) = pair(3);
    let bytes: Vec<u8> = (0..200).map(|i| i as u8).collect();
    assert_eq!(ws.write(&bytes).await.unwrap(), 200);
    let reader = tokio::spawn(async move {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        got
    });
    assert_eq!(ws.write(b"next").await.unwrap(), 4);
    ws.flush().await.unwrap();
    assert_eq!(ws.out.capacity(), 0, "an idle connection holds no buffer");
    ws.shutdown().await.unwrap();
    let expected = [&[0x82, 126, 0, 200], &bytes[..], b"\x82\x04next", &[0x88, 2, 0x03, 0xE8]].concat();
    assert_eq!(reader.await.unwrap(), expected);
}

#[tokio::test]
async fn a_write_of_more_than_64_kib_takes_what_fits_a_frame() {
    let (mut ws, _peer) = pair(1 << 20);
    let bytes = vec![7; 100_000];
    assert_eq!(ws.write(&bytes).await.unwrap(), 65_535);
    let many: Vec<_> = (0..200).map(|_| IoSlice::new(b"x")).collect();
    assert_eq!(ws.write_vectored(&many).await.unwrap(), MAX_SLICES);
}

#[tokio::test]
async fn pings_are_answered_while_reading_though_no_data_comes() {
    let (mut ws, mut peer) = pair(1024);
    peer.write_all(&frame(0x89, b"are you there")).await.unwrap();
    let reader = tokio::spawn(async move { read(&mut ws).await });
    let mut pong = [0; 15];
    peer.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"\x8A\x0Dare you there");
    peer.write_all(&frame(0x82, b"data")).await.unwrap();
    assert_eq!(reader.await.unwrap().unwrap(), b"data");
}

#[tokio::test]
async fn bytes_that_came_with_the_upgrade_are_read_first() {
    let (ours, mut theirs) = duplex(1024);
    let mut ws = WsStream::new(ours, frame(0x82, b"early"), 1 << 20);
    theirs.write_all(&frame(0x82, b"late")).await.unwrap();
    let mut got = [0; 9];
    ws.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"earlylate");
    assert_eq!(ws.early.capacity(), 0);
}

#[tokio::test]
async fn reading_keeps_what_is_in_the_buffer_already() {
    let (mut ws, mut peer) = pair(1024);
    peer.write_all(&[frame(0x82, b"cd"), frame(0x82, b"ef")].concat()).await.unwrap();
    let mut bytes = b"ab".to_vec();
    bytes.reserve(100);
    ws.read_buf(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"abcdef");
}

#[tokio::test]
async fn a_close_is_answered_and_read_as_the_end() {
    let (mut ws, mut peer) = pair(1024);
    peer.write_all(&[frame(0x82, b"last"), frame(0x88, b"\x03\xE9")].concat()).await.unwrap();
    assert_eq!(read(&mut ws).await.unwrap(), b"last");
    assert_eq!(read(&mut ws).await.unwrap(), b"");
    assert_eq!(ws.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    ws.shutdown().await.unwrap();
    let mut got = Vec::new();
    peer.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"\x88\x02\x03\xE9", "exactly one Close");
}

#[tokio::test]
async fn a_bad_frame_fails_the_read_after_what_came_before_and_closes_with_its_code() {
    let (mut ws, mut peer) = pair(1024);
    peer.write_all(&[frame(0x82, b"good"), frame(0x81, b"text")].concat()).await.unwrap();
    assert_eq!(read(&mut ws).await.unwrap(), b"good");
    let error = read(&mut ws).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(error.get_ref().and_then(|error| error.downcast_ref()), Some(&FrameError::Text));
    let mut got = [0; 4];
    peer.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [0x88, 2, 0x03, 0xEB]);
}

#[tokio::test]
async fn a_peer_that_only_pings_and_never_reads_costs_one_pong() {
    let (mut ws, mut peer) = pair(16);
    let pinger = tokio::spawn(async move {
        for _ in 0..1000 {
            peer.write_all(&frame(0x89, b"0123456789")).await.unwrap();
        }
        peer.write_all(&frame(0x82, b"data")).await.unwrap();
        peer
    });
    assert_eq!(read(&mut ws).await.unwrap(), b"data");
    assert!(ws.out.capacity() <= 64);
    drop(pinger.await.unwrap());
}

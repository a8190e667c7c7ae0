use quickcheck::quickcheck;

use super::*;

fn wire(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for message in messages {
        wire.push(0);
        wire.extend_from_slice(&(message.len() as u32).to_be_bytes());
        wire.extend_from_slice(message);
    }
    wire
}

/// Reads `buf` as a socket does: vectored, and accepting `steps` bytes at a time.
fn drain(mut buf: SendBuf, steps: &[u8]) -> Vec<u8> {
    let mut steps = steps.iter().map(|step| usize::from(*step) % 300 + 1).cycle();
    let mut sent = Vec::new();
    while buf.has_remaining() {
        let mut slices = [IoSlice::new(&[]); 3];
        let filled = buf.chunks_vectored(&mut slices);
        assert_eq!(&slices[0][..], buf.chunk());
        let mut room = steps.next().unwrap_or(7);
        let mut taken = 0;
        for slice in &slices[..filled] {
            let part = &slice[..slice.len().min(room)];
            sent.extend_from_slice(part);
            (room, taken) = (room - part.len(), taken + part.len());
        }
        assert!(taken > 0, "what remains is offered");
        buf.advance(taken);
    }
    sent
}

fn grow(messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    // Half of the messages shall be too long to be copied.
    messages.into_iter().map(|message| if message.len() % 2 == 0 { message.repeat(40) } else { message }).collect()
}

quickcheck! {
    fn a_batch_is_its_messages_one_after_the_other(messages: Vec<Vec<u8>>, steps: Vec<u8>) -> bool {
        let messages = grow(messages);
        let mut batch = Batch::new();
        for message in &messages {
            batch.push(message.clone().into());
        }
        let len = batch.len();
        let buf = batch.into_buf();
        buf.remaining() == len && drain(buf, &steps) == wire(&messages)
    }

    fn parts_make_one_message(parts: Vec<Vec<u8>>, steps: Vec<u8>) -> bool {
        let parts = grow(parts);
        let mut batch = Batch::new();
        batch.push(Bytes::from_static(b"before"));
        batch.push_parts(parts.iter().cloned().map(Bytes::from).collect());
        let expected = wire(&[b"before".to_vec(), parts.concat()]);
        drain(batch.into_buf(), &steps) == expected
    }

    fn one_message_needs_no_batch(message: Vec<u8>, steps: Vec<u8>) -> bool {
        let message = message.repeat(3);
        drain(SendBuf::message(false, message.clone().into()), &steps) == wire(&[message])
    }

    fn encoded_messages_are_framed_alike(text: String, steps: Vec<u8>) -> bool {
        use prost::Message as _;
        let expected = wire(&[text.encode_to_vec(), text.encode_to_vec()]);
        let mut batch = Batch::new();
        batch.push_encoded(&text);
        batch.push_encoded(&text);
        let single = drain(SendBuf::encoded(&text), &steps);
        drain(batch.into_buf(), &steps) == expected && single == expected[..expected.len() / 2]
    }
}

#[test]
fn long_payloads_are_not_copied() {
    let payload = Bytes::from(vec![7; 1000]);
    let mut batch = Batch::new();
    batch.push(Bytes::from_static(b"short"));
    batch.push(payload.clone());
    batch.push(payload.clone());
    let buf = batch.into_buf();
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(buf.chunks_vectored(&mut slices), 4);
    assert_eq!(slices[0].len(), 5 + 5 + 5);
    assert_eq!(slices[1].as_ptr(), payload.as_ptr());
    assert_eq!(slices[2].len(), 5);
    assert_eq!(slices[3].as_ptr(), payload.as_ptr());
}

#[test]
fn the_prefixes_of_a_batch_share_one_buffer() {
    let payload = Bytes::from(vec![7; 1000]);
    let mut batch = Batch::new();
    for _ in 0..8 {
        batch.push(payload.clone());
    }
    let buf = batch.into_buf();
    let mut slices = [IoSlice::new(&[]); 16];
    assert_eq!(buf.chunks_vectored(&mut slices), 16);
    for pair in slices.chunks(2).collect::<Vec<_>>().windows(2) {
        assert_eq!(pair[1][0].as_ptr() as usize - pair[0][0].as_ptr() as usize, PREFIX_LEN);
    }
}

#[test]
fn a_batch_knows_its_measures() {
    let mut batch = Batch::new();
    assert!(batch.is_empty());
    batch.push(Bytes::new());
    batch.push(Bytes::from(vec![0; 300]));
    assert_eq!((batch.messages(), batch.len(), batch.largest()), (2, 310, 300));
    assert_eq!(SendBuf::empty().remaining(), 0);
    assert_eq!(SendBuf::empty().chunks_vectored(&mut [IoSlice::new(&[])]), 0);
}

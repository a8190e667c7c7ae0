use quickcheck::quickcheck;

use super::*;

fn wire(messages: &[(bool, Vec<u8>)]) -> Vec<u8> {
    let mut wire = Vec::new();
    for (compressed, message) in messages {
        wire.extend_from_slice(&crate::frame::prefix(*compressed, message.len()));
        wire.extend_from_slice(message);
    }
    wire
}

/// Decodes `wire` cut into frames of the given lengths (in turn).
fn decode(wire: &[u8], cuts: &[u8], decoder: &mut Decoder) -> Result<Vec<(bool, Vec<u8>)>, FrameError> {
    let mut cuts = cuts.iter().map(|cut| usize::from(*cut)).filter(|cut| *cut > 0).collect::<Vec<_>>();
    cuts.push(wire.len().max(1));
    let mut cuts = cuts.into_iter().cycle();
    let mut rest = wire;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (frame, tail) = rest.split_at(cuts.next().map_or(1, |cut| cut.min(rest.len())));
        rest = tail;
        decoder.push(Bytes::copy_from_slice(frame));
        while let Some(message) = decoder.next()? {
            messages.push((message.compressed, message.payload.to_vec()));
        }
    }
    Ok(messages)
}

quickcheck! {
    fn messages_survive_any_cut(messages: Vec<(bool, Vec<u8>)>, cuts: Vec<u8>) -> bool {
        let mut decoder = Decoder::new(usize::MAX);
        decode(&wire(&messages), &cuts, &mut decoder) == Ok(messages) && !decoder.is_within_message()
    }

    fn garbage_never_panics(garbage: Vec<u8>, cuts: Vec<u8>) -> bool {
        let _ = decode(&garbage, &cuts, &mut Decoder::new(100));
        true
    }

    fn a_sequence_that_ends_early_is_noticed(messages: Vec<(bool, Vec<u8>)>, last: Vec<u8>, missing: usize) -> bool {
        let mut wire = wire(&messages);
        let tail = self::wire(&[(false, last)]);
        let missing = missing % tail.len() + 1;
        wire.extend_from_slice(&tail[..tail.len() - missing]);
        let mut decoder = Decoder::new(usize::MAX);
        let complete = missing == tail.len();
        decode(&wire, &[3], &mut decoder) == Ok(messages) && decoder.is_within_message() != complete
    }
}

#[test]
fn a_message_within_one_frame_is_not_copied() {
    let frame = Bytes::from(wire(&[(false, vec![1; 10]), (true, vec![2; 20])]));
    let mut decoder = Decoder::new(usize::MAX);
    decoder.push(frame.clone());
    let first = decoder.next().unwrap().unwrap();
    let second = decoder.next().unwrap().unwrap();
    assert_eq!(first.payload.as_ptr(), frame[5..].as_ptr());
    assert_eq!(second.payload.as_ptr(), frame[20..].as_ptr());
    assert_eq!((first.compressed, second.compressed), (false, true));
    assert_eq!(decoder.next(), Ok(None));
}

#[test]
fn an_empty_message_needs_no_further_frame() {
    let mut decoder = Decoder::new(0);
    decoder.push(Bytes::from(wire(&[(false, vec![])])));
    assert_eq!(decoder.next(), Ok(Some(Message { compressed: false, payload: Bytes::new() })));
    assert!(!decoder.is_within_message());
}

#[test]
fn a_long_message_is_refused_when_its_length_is_known() {
    let mut decoder = Decoder::new(99);
    decoder.push(Bytes::from_static(&[0, 0, 0, 0, 100]));
    assert_eq!(decoder.next(), Err(FrameError::TooLarge { len: 100, limit: 99 }));
}

#[test]
fn a_flag_that_nobody_defined_is_refused() {
    let mut decoder = Decoder::new(99);
    decoder.push(Bytes::from_static(&[2, 0, 0, 0, 0]));
    assert_eq!(decoder.next(), Err(FrameError::Flag(2)));
}

#[test]
fn an_announced_length_allocates_no_more_than_what_is_reasonable() {
    let mut decoder = Decoder::new(usize::MAX);
    decoder.push(Bytes::from_static(&[0, 255, 255, 255, 255, 1, 2, 3]));
    assert_eq!(decoder.next(), Ok(None));
    let State::Body { gathered, len, .. } = &decoder.state else { panic!("{decoder:?}") };
    assert_eq!(*len, u32::MAX as usize);
    assert!(gathered.capacity() < 2 * MAX_UPFRONT);
}

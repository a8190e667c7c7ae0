//! The `grpc-timeout` header: up to eight digits and a unit.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const MAX_VALUE: u128 = 99_999_999;

/// Units from fine to coarse, in nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 3600 * 1_000_000_000),
];

/// Tells `timeout` in the finest unit that fits, rounded up: the server must not give up before this side does.
pub(crate) fn write_timeout(timeout: Duration, headers: &mut HeaderMap) {
    let nanos = timeout.as_nanos();
    let values = UNITS.iter().map(|(unit, size)| (*unit, nanos.div_ceil(*size)));
    let (unit, value) = values.into_iter().find(|(_, value)| *value <= MAX_VALUE).unwrap_or((b'H', MAX_VALUE));
    if let Ok(value) = HeaderValue::from_str(&format!("{value}{}", char::from(unit))) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

/// The timeout that a request has. One that is malformed is taken for none.
pub(crate) fn read_timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(GRPC_TIMEOUT)?.as_bytes().split_last()?;
    let (_, size) = UNITS.iter().find(|(name, _)| name == unit)?;
    let well_formed = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let value: u64 = std::str::from_utf8(digits).ok().filter(|_| well_formed)?.parse().ok()?;
    let nanos = u128::from(value) * size;
    Some(Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32))
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn written(timeout: Duration) -> String {
        let mut headers = HeaderMap::new();
        write_timeout(timeout, &mut headers);
        headers[GRPC_TIMEOUT].to_str().unwrap().to_owned()
    }

    fn read(value: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(value));
        read_timeout(&headers)
    }

    #[test]
    fn the_finest_unit_that_fits_is_used_rounded_up() {
        assert_eq!(written(Duration::ZERO), "0n");
        assert_eq!(written(Duration::from_millis(20)), "20000000n");
        assert_eq!(written(Duration::from_millis(100)), "100000u");
        assert_eq!(written(Duration::new(20, 1)), "20000001u");
        assert_eq!(written(Duration::from_secs(3600)), "3600000m");
        assert_eq!(written(Duration::from_secs(99_999_999)), "99999999S");
        assert_eq!(written(Duration::from_secs(100_000_000)), "1666667M");
        assert_eq!(written(Duration::MAX), "99999999H");
    }

    #[test]
    fn malformed_timeouts_are_none() {
        for value in ["", "n", "1", "1x", "-1S", "+1S", "123456789n", "1 S", "0x1S"] {
            assert_eq!(read(value), None, "{value}");
        }
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
    }

    quickcheck! {
        fn a_timeout_is_never_read_shorter_than_written(seconds: u32, nanos: u32) -> bool {
            let timeout = Duration::new(seconds.into(), nanos % 1_000_000_000);
            let mut headers = HeaderMap::new();
            write_timeout(timeout, &mut headers);
            let read = read_timeout(&headers).unwrap();
            // Of a value that no longer fits in eight digits, the next unit (a thousand times coarser) keeps five.
            read >= timeout && read - timeout <= timeout / 100_000
        }
    }
}

use super::*;

#[test]
fn arithmetic_saturates_at_both_ends() {
    let second = Duration::from_secs(1);
    assert_eq!(Time::MAX + second, Time::MAX);
    assert_eq!(Time::from_nanos(5) + Duration::MAX, Time::MAX);
    assert_eq!(Time::ZERO - second, Time::ZERO);
    assert_eq!(Time::from_millis(u64::MAX), Time::MAX);
    assert_eq!(Time::from_millis(1_500) - second, Time::from_millis(500));
    let mut time = Time::from_millis(1);
    time += second;
    assert_eq!((time.as_millis(), time.as_nanos()), (1_001, 1_001_000_000));
}

#[test]
fn what_lies_in_the_future_has_not_passed() {
    let (early, late) = (Time::from_millis(1), Time::from_millis(3));
    assert_eq!(late.saturating_since(early), Duration::from_millis(2));
    assert_eq!(early.saturating_since(late), Duration::ZERO);
}

#[test]
fn a_time_reads_as_what_has_passed_since_the_origin() {
    assert_eq!(format!("{:?} {:?}", Time::from_millis(1_500), Time::MAX), "1.5s never");
}

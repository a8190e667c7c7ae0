//! Encodings of keys and numbers that keep their order.

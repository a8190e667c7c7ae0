//! CRC-64/XZ: the polynomial of ECMA-182, reflected.

const POLYNOMIAL: u64 = 0xC96C_5795_D787_0F42;

const TABLE: [u64; 256] = table();

const fn table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// The checksum of some byte strings, one after the other.
pub(super) fn crc64<const N: usize>(parts: [&[u8]; N]) -> u64 {
    let step = |crc: u64, byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    !parts.into_iter().flatten().fold(u64::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::crc64;

    #[test]
    fn the_check_value_of_crc_64_xz_comes_out() {
        assert_eq!(crc64([b"123456789"]), 0x995D_C9BB_DF19_39FA);
        assert_eq!(crc64([b"1234", b"56789"]), crc64([b"123456789"]));
        assert_eq!(crc64([]), 0);
    }
}

//! Sizes as people write them.

use std::ops::RangeInclusive;

use crate::endpoint::parse_bytes;

/// The largest message or chunk: it is held in memory, several times.
const LARGEST: usize = 256 << 20;

/// Reads the size of a message or a chunk.
pub(super) fn size(text: &str) -> Result<usize, String> {
    size_in(1..=LARGEST, text)
}

/// Reads a number of bytes within that range.
pub(super) fn size_in(range: RangeInclusive<usize>, text: &str) -> Result<usize, String> {
    let size = parse_bytes(text).and_then(|size| usize::try_from(size).ok());
    size.filter(|size| range.contains(size)).ok_or_else(|| {
        let (least, most) = (range.start(), range.end() >> 20);
        format!("write a number of bytes from {least} to {most} MiB, such as 4096, 64K or 1MiB")
    })
}

#[cfg(test)]
mod tests {
    use super::{size, size_in};

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64K"), Ok(64 << 10));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert_eq!(size("256mb"), Ok(256 << 20));
        assert_eq!(size_in(0..=16, "0"), Ok(0));
        for wrong in [
            "",
            "K",
            "0",
            "-1",
            "1T",
            "257M",
            "20G",
            "1.5M",
            "+1",
            "4 K",
            "99999999999999999999",
            "99999999999999999G",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}

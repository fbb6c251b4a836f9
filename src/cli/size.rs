//! Sizes as people write them.

/// Reads a number of bytes: `4096`, `64K`, `1M`, `1MiB`, `2GB`; a kilo is 1024.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err("write a number of bytes, such as 4096, 64K, 1M or 2GiB".into()),
    };
    number
        .parse::<usize>()
        .ok()
        .filter(|number| *number > 0)
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "write a number of bytes from 1 up, such as 4096, 64K or 1M".into())
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64K"), Ok(64 << 10));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert_eq!(size("2gb"), Ok(2 << 30));
        for wrong in [
            "",
            "K",
            "0",
            "-1",
            "1T",
            "1.5M",
            "99999999999999999999",
            "99999999999999999G",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}

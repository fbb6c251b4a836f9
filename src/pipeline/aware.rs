//! Whether a program speaks rings: told by marks in its executable.
//!
//! A program that calls [`stage::input`](crate::stage::input) has a section `ringway_in`, one that
//! calls [`stage::output`](crate::stage::output) a section `ringway_out`: the functions refer to
//! it, so that the linker keeps it exactly when they are called. The sections survive `strip`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The section of a program that takes its input as messages.
const INPUT: &str = "ringway_in";
/// The section of a program that gives its output as messages.
const OUTPUT: &str = "ringway_out";

/// Which of its two sides a program has as messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aware {
    /// Its input.
    pub input: bool,
    /// Its output.
    pub output: bool,
}

impl Aware {
    /// Neither side: a program that knows nothing of Ringway.
    pub const NO: Aware = Aware {
        input: false,
        output: false,
    };
    /// Both sides.
    pub const BOTH: Aware = Aware {
        input: true,
        output: true,
    };
}

/// Reads the marks of an executable. A file that is no 64-bit ELF file of this machine's byte
/// order, or that cannot be read, has none.
pub(super) fn marks(program: &Path) -> Aware {
    File::open(program)
        .ok()
        .and_then(|file| sections(&file))
        .unwrap_or(Aware::NO)
}

fn sections(file: &File) -> Option<Aware> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    let order = if cfg!(target_endian = "little") { 1 } else { 2 };
    if header[..4] != *b"\x7fELF" || header[4] != 2 || header[5] != order {
        return None;
    }
    let table = u64::from_ne_bytes(header[0x28..0x30].try_into().ok()?);
    let [size, count, names] =
        [0x3a, 0x3c, 0x3e].map(|at| u16::from_ne_bytes([header[at], header[at + 1]]));
    if size < 64 || names >= count {
        return None;
    }
    // At most 65,535 sections of at least 64 bytes: a bounded read, whatever the file says.
    let mut table_bytes = vec![0; size as usize * count as usize];
    file.read_exact_at(&mut table_bytes, table).ok()?;
    let section = |index: usize| table_bytes.get(index * size as usize..);
    let long = |section: &[u8], at: usize| {
        Some(u64::from_ne_bytes(
            section.get(at..at + 8)?.try_into().ok()?,
        ))
    };
    let strings = section(names as usize)?;
    let (offset, len) = (long(strings, 0x18)?, long(strings, 0x20)?);
    let mut strings = vec![0; len.min(1 << 20) as usize];
    file.read_exact_at(&mut strings, offset).ok()?;
    let has = |name: &str| {
        (0..count as usize).any(|index| {
            let at = section(index)
                .and_then(|section| section.get(..4))
                .map_or(0, |at| u32::from_ne_bytes([at[0], at[1], at[2], at[3]]));
            strings.get(at as usize..).is_some_and(|rest| {
                rest.strip_prefix(name.as_bytes())
                    .is_some_and(|rest| rest.first() == Some(&0))
            })
        })
    };
    Some(Aware {
        input: has(INPUT),
        output: has(OUTPUT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_the_system_have_no_marks() {
        assert_eq!(marks(Path::new("/bin/sh")), Aware::NO);
        assert_eq!(marks(Path::new("/etc/passwd")), Aware::NO);
        assert_eq!(marks(Path::new("/nonexistent")), Aware::NO);
    }

    #[test]
    fn a_damaged_executable_has_no_marks_and_does_no_harm() {
        let whole = std::fs::read("/bin/sh").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        for damage in [4, 5, 0x28, 0x2f, 0x3a, 0x3c, 0x3e, 0x3f] {
            let mut bytes = whole.clone();
            bytes[damage] ^= 0xff;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(marks(&path), Aware::NO, "byte {damage}");
        }
        for len in [0, 3, 63, 64, 100, whole.len() - 10] {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(marks(&path), Aware::NO, "{len} bytes");
        }
    }
}

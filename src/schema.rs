//! What the messages of a ring are, as its header records it: raw bytes, or values of a type.

use std::fmt;

use crate::error::Error;
use crate::layout::{Header, TYPE_NAME};

/// What two programs must agree on before one reads as values what the other wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    name: String,
    size: u64,
    align: u64,
    version: u32,
}

impl Schema {
    /// The schema of `T`: its name is what it is called, without the path of its module, so that two
    /// programs may each have a definition of their own.
    pub(crate) fn of<T>() -> Schema {
        Schema {
            name: short_name(std::any::type_name::<T>()),
            size: size_of::<T>() as u64,
            align: align_of::<T>() as u64,
            version: 0,
        }
    }

    /// The same with another name.
    pub(crate) fn named(self, name: &str) -> Schema {
        let name = name.to_owned();
        Schema { name, ..self }
    }

    /// The same with another version.
    pub(crate) fn versioned(self, version: u32) -> Schema {
        Schema { version, ..self }
    }

    /// How many bytes a value has.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What a header says; `None` for a ring of raw bytes.
    pub(crate) fn recorded(header: &Header) -> Option<Schema> {
        if header.type_size == 0 {
            return None;
        }
        let name = &header.type_name;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(TYPE_NAME);
        Some(Schema {
            name: String::from_utf8_lossy(&name[..end]).into_owned(),
            size: header.type_size,
            align: header.type_align,
            version: header.type_version,
        })
    }

    /// Writes it into the header of a new ring.
    pub(crate) fn record(&self, header: &mut Header) {
        header.type_size = self.size;
        header.type_align = self.align;
        header.type_version = self.version;
        header.type_name = self.name_bytes();
    }

    /// The name as a header holds it: cut where there is no room for more.
    fn name_bytes(&self) -> [u8; TYPE_NAME] {
        let mut bytes = [0; TYPE_NAME];
        let len = self.name.len().min(TYPE_NAME);
        bytes[..len].copy_from_slice(&self.name.as_bytes()[..len]);
        bytes
    }

    /// Refuses a ring that carries something else.
    pub(crate) fn check(&self, name: &str, header: &Header) -> Result<(), Error> {
        let found = Schema::recorded(header);
        let same = found.as_ref().is_some_and(|found| {
            header.type_name == self.name_bytes()
                && (found.size, found.align, found.version) == (self.size, self.align, self.version)
        });
        if same {
            return Ok(());
        }
        Err(Error::TypeMismatch {
            name: name.into(),
            found: found.map_or_else(|| "raw bytes of no type".into(), |found| found.to_string()),
            expected: self.to_string(),
        })
    }

    /// Refuses a ring in which not even one value fits.
    pub(crate) fn must_fit(&self, max: usize, what: &'static str, value: u64) -> Result<(), Error> {
        if self.size <= max as u64 {
            return Ok(());
        }
        Err(Error::Config {
            what,
            value: value.to_string(),
            why: format!(
                "a message may have {max} bytes, and {self} has {}",
                self.size
            ),
            remedy: "choose a larger one".into(),
        })
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Schema {
            name,
            size,
            align,
            version,
        } = self;
        write!(
            f,
            "{name} (version {version}, {size} bytes, aligned to {align})"
        )
    }
}

/// A type's name with every path in it cut down to its last part.
fn short_name(full: &str) -> String {
    let mut short = String::with_capacity(full.len());
    let mut word = 0;
    let mut rest = full.chars().peekable();
    while let Some(char) = rest.next() {
        if char == ':' && rest.peek() == Some(&':') {
            rest.next();
            short.truncate(word);
        } else {
            short.push(char);
            if !char.is_alphanumeric() && char != '_' {
                word = short.len();
            }
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_down_to_what_the_type_is_called() {
        for (full, short) in [
            ("u64", "u64"),
            ("app::orders::Order", "Order"),
            ("[app::Tick; 4]", "[Tick; 4]"),
            (
                "a::Pair<b::c::Left, core::option::Option<d::Right>>",
                "Pair<Left, Option<Right>>",
            ),
            ("(a::B, &c::D)", "(B, &D)"),
        ] {
            assert_eq!(short_name(full), short);
        }
    }

    #[test]
    fn a_name_too_long_for_the_header_is_cut_and_still_agrees_with_itself() {
        let schema = Schema::of::<u64>().named(&"ä".repeat(200));
        let mut bytes = [0; crate::layout::HEADER];
        bytes[0] = 1;
        let mut header = Header::from_bytes(bytes);
        schema.record(&mut header);
        assert_eq!(header.type_name[TYPE_NAME - 1], 0xa4);
        schema.check("here", &header).unwrap();
        let other = schema.clone().versioned(1);
        let error = other.check("here", &header).unwrap_err().to_string();
        assert!(
            error.contains("version 0") && error.contains("version 1"),
            "{error}"
        );
    }
}

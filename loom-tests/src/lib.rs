//! Ringway's own algorithm files, compiled against loom's primitives.
//!
//! Nothing here is a copy: `#[path]` takes the files of `src/`, and `primitive` gives them loom's
//! atomics and cells under the names that `src/primitive.rs` gives them the processor's.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod harness;
pub mod primitive;

//! Images of rings, commands, endpoints and frames that are nearly right, or not at all: the same functions
//! as are fuzzed with coverage (`tests/fuzz`), on bytes from a printed seed, as part of the ordinary tests.
//!
//! `RINGWAY_IMAGES=1000000` tries so many of each kind; `RINGWAY_SEED=0x...` begins there.

#[path = "fuzz/src/lib.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod targets;

mod common;
use common::{Random, task, watchdog};

/// A seed of the target with a few changes, such as a fuzzer makes.
fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    const EDGES: [u64; 8] = [0, 1, u64::MAX, 1 << 63, 1 << 62, 1 << 31, 1 << 32, 4096];
    let mut bytes = seeds[random.below(seeds.len() as u64) as usize].clone();
    for _ in 0..1 + random.below(12) {
        if bytes.is_empty() {
            bytes.push(random.next() as u8);
        }
        // Half of all changes are where a ring keeps what matters.
        let most = if random.below(2) == 0 {
            512
        } else {
            bytes.len()
        };
        let at = random.below(bytes.len().min(most) as u64) as usize;
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => {
                let word = EDGES[random.below(8) as usize].to_le_bytes();
                let at = at & !7;
                let len = 8.min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&word[..len]);
            }
            3 => bytes[at] = bytes[at].wrapping_add(1),
            4 => bytes[at] = bytes[at].wrapping_sub(1),
            5 if random.below(8) == 0 => bytes.truncate(at),
            6 => {
                let piece: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
                bytes.splice(at..at, piece);
            }
            _ => {
                let other = &seeds[random.below(seeds.len() as u64) as usize];
                let from = random.below(other.len() as u64) as usize;
                let piece = other[from..other.len().min(from + 64)].to_vec();
                let len = piece.len().min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&piece[..len]);
            }
        }
    }
    bytes
}

fn try_images(name: &str, default: u64) {
    if task().is_some() {
        return;
    }
    let number = |variable: &str| {
        let text = std::env::var(variable).ok()?;
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    };
    let count = number("RINGWAY_IMAGES").unwrap_or(default);
    let _watchdog = watchdog(60 + count / 50);
    let seed = number("RINGWAY_SEED").unwrap_or(0x0005_eed0);
    let mut random = Random(seed);
    let (_, run) = *targets::TARGETS
        .iter()
        .find(|(target, _)| *target == name)
        .unwrap();
    let seeds = targets::seeds(name);
    for number in 0..count {
        let input = mutate(&seeds, &mut random);
        let result = std::panic::catch_unwind(|| run(&input));
        assert!(
            result.is_ok(),
            "{name}: input {number} from seed {seed:#x}: {input:02x?}"
        );
    }
    println!("{name}: {count} inputs from seed {seed:#x}");
}

#[test]
fn any_image_is_attached_to_or_refused() {
    try_images("attach", 700);
}

#[test]
fn a_ring_whose_memory_changes_between_calls_is_used_or_corrupt() {
    try_images("receive", 400);
}

#[test]
fn any_line_is_a_command_or_malformed() {
    try_images("control", 2000);
}

#[test]
fn any_text_is_an_endpoint_or_an_error() {
    try_images("endpoint", 4000);
}

#[test]
fn any_bytes_are_messages_or_corrupt() {
    try_images("frames", 2000);
}

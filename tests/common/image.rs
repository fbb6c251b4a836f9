//! What a ring's memory holds after each instruction of an operation: what a kill there would leave.
#![allow(unreachable_pub)] // each test binary uses its own part

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::step::{End, Stepped};

/// The images of a stepped stretch, in the order in which they came, without doubles.
pub struct Steps {
    pub images: Vec<Vec<u8>>,
    pub instructions: usize,
    pub end: End,
}

/// Steps a process, which is at its first mark, to its second or until it sleeps; and kills it there.
pub fn record(mut stepped: Stepped, file: &File) -> Steps {
    let mut now = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut now, 0).unwrap();
    let mut images = vec![now.clone()];
    let mut known = HashSet::from([now.clone()]);
    let mut last = now.clone();
    let mut look = || {
        file.read_exact_at(&mut now, 0).unwrap();
        if now != last {
            last.clone_from(&now);
            if known.insert(now.clone()) {
                images.push(now.clone());
            }
        }
    };
    let end = stepped.run(|_| {
        look();
        true
    });
    look();
    Steps {
        images,
        instructions: stepped.steps,
        end,
    }
}

/// A sealed copy of a ring's memory, in which nobody holds a lock: all its participants are dead.
pub fn copy(image: &[u8]) -> OwnedFd {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create("image", flags).unwrap();
    let file = File::from(fd.try_clone().unwrap());
    file.write_all_at(image, 0).unwrap();
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(fd.as_fd(), FcntlArg::F_ADD_SEALS(seals)).unwrap();
    fd
}

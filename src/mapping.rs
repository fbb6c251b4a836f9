//! A ring's memory: created whole or not at all, attached only when it is what it says, named, and
//! its name taken away again.
//!
//! # Who unlinks a name
//!
//! Everyone attached holds a shared lock on one byte of the file. The last one to leave takes the
//! name away if nothing undelivered is left behind; if there is, the name stays for a consumer to
//! come. A name all of whose owners are dead is *abandoned*: `attach` takes it up where they left
//! it, `create` replaces it.
//!
//! # How a name appears
//!
//! The file is made without a name, filled in, and then linked to its name in one step. So an
//! attacher sees a whole ring or none, and a creator killed half-way leaves nothing at all.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};

use crate::error::Error;
use crate::layout::{self, Header, Kind};
use crate::os;
use crate::os::guard::Noted;
use crate::os::life::LockFile;

/// What is wrong with a ring whose memory somebody took away.
pub(crate) const LOST: &str = "memory, which somebody truncated";
/// Where named rings live.
const SHM: &str = "/dev/shm";
/// What the names of our files begin with.
pub(crate) const PREFIX: &str = "ringway.";
/// The longest name.
const NAME_MAX: usize = 200;
/// How often an attacher looks again at a name that is just being replaced or taken away: so often at once, and so
/// often a millisecond apart, as whoever does that may have been preempted.
const REPLACING: u32 = 1_000;
const REPLACING_SLOWLY: u32 = 2_000;
/// How often one who attaches or creates does both.
const CREATING: u32 = 16;

/// Where a ring's file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: an anonymous memory file.
    Anonymous,
    /// Under a path.
    Path(PathBuf),
}

impl Place {
    /// The place a name stands for: with a slash a plain file, without one in `/dev/shm`.
    pub(crate) fn of(name: &str) -> Result<Place, Error> {
        let refuse = |why: &str| Error::Config {
            what: "name",
            value: format!("{name:?}"),
            why: why.into(),
            remedy: "use letters, digits, '.', '-' and '_', or the path of a file".into(),
        };
        if name.is_empty() {
            return Err(refuse("it is empty"));
        }
        if name.contains('\0') {
            return Err(refuse("it holds a NUL byte"));
        }
        if name.ends_with('/') {
            return Err(refuse("it is that of a directory"));
        }
        if name.contains('/') {
            return Ok(Place::Path(name.into()));
        }
        if name.len() > NAME_MAX {
            return Err(refuse("it is longer than 200 bytes"));
        }
        Ok(Place::Path(Path::new(SHM).join(format!("{PREFIX}{name}"))))
    }
}

/// How to make the memory of a ring.
#[derive(Clone, Debug)]
pub(crate) struct Making {
    /// Permission bits of the file.
    pub(crate) mode: u32,
    /// Whether to ask for huge pages.
    pub(crate) huge: bool,
    /// What to do when the name is taken by a ring that nobody is attached to.
    pub(crate) abandoned: Abandoned,
}

/// What becomes of a ring that nobody is attached to, but which still has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abandoned {
    /// The new one takes its place, whatever is in it.
    Replace,
    /// It is in the way of the new one: what is in it waits for whoever attaches.
    Keep,
}

/// Attaches, or creates what does not exist. `create` is told to keep what is abandoned: if something has
/// appeared since `attach` looked, messages may be in it already, and whoever sent them may have left.
///
/// # Errors
/// Those of both. That it exists already, if `attach` never finds it and `create` always does: then somebody does
/// not let go of the lock that is held while a name is replaced.
pub(crate) fn create_or_attach<R>(
    attach: impl Fn() -> Result<R, Error>,
    create: impl Fn(Abandoned) -> Result<R, Error>,
) -> Result<R, Error> {
    let mut left = CREATING;
    loop {
        match attach() {
            Err(Error::NotFound { .. }) => {}
            result => return result,
        }
        match create(Abandoned::Keep) {
            // Somebody else created it in between.
            Err(Error::AlreadyExists { .. }) if left > 0 => left -= 1,
            result => return result,
        }
    }
}

/// The memory of a ring, mapped.
pub(crate) struct Mapping {
    /// For messages.
    name: String,
    file: File,
    /// Gone before `map`.
    noted: Noted,
    map: Arc<MmapRaw>,
    header: Header,
    presence: LockFile,
    place: Place,
    writable: bool,
    /// Whether huge pages were asked for and could not be had.
    huge_refused: Option<io::Error>,
}

impl Mapping {
    /// Makes the memory for a ring that `header` describes, has `fill` put the ring's words in it,
    /// and only then gives it its name.
    pub(crate) fn create(
        name: &str,
        place: Place,
        header: Header,
        making: &Making,
        fill: impl Fn(&Mapping) -> Result<(), Error>,
    ) -> Result<Mapping, Error> {
        if let Place::Path(path) = &place
            && std::fs::symlink_metadata(path).is_ok()
        {
            // Before memory is asked for: what is in the way may be what fills the place.
            making.make_way(name, path, header.kind)?;
        }
        loop {
            let (file, header, huge_refused) = make_file(name, &place, header, making)?;
            let mapping = Mapping::map(name, place.clone(), file, header, true, huge_refused);
            let mapping = mapping.map_err(|error| match error {
                Error::PermissionDenied { .. } => Error::Config {
                    what: "mode",
                    value: format!("{:04o}", making.mode),
                    why: format!("it would keep the creator of {name} out"),
                    remedy: "let the owner read and write: 0600 and more".into(),
                },
                error => error,
            })?;
            fill(&mapping)?;
            let bytes = header.to_bytes();
            // SAFETY: the mapping is longer than a header, and nobody else has it yet.
            unsafe {
                mapping
                    .at(0)
                    .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
            };
            match &mapping.place {
                Place::Anonymous => {
                    os::shm::seal(&mapping.file).map_err(|e| Error::os("seal", name, e))?;
                    return Ok(mapping);
                }
                Place::Path(path) => match os::shm::link(&mapping.file, path) {
                    Ok(()) => return Ok(mapping),
                    Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                        making.make_way(name, path, header.kind)?;
                    }
                    Err(error) => return Err(Error::os("linkat", name, error)),
                },
            }
        }
    }

    /// Attaches to the ring under `name`.
    pub(crate) fn attach(
        name: &str,
        place: Place,
        kind: Kind,
        writable: bool,
    ) -> Result<Mapping, Error> {
        let Place::Path(path) = &place else {
            unreachable!("only paths are attached to by name")
        };
        let patience = REPLACING + REPLACING_SLOWLY;
        for round in 0.. {
            let file = open(name, path, kind.name(), writable)?;
            let header = read_header(name, &file, kind)?;
            fill_holes(name, &file, &header, writable)?;
            match Mapping::map(name, place.clone(), file, header, writable, None) {
                Ok(mapping) if os::shm::is_named(&mapping.file, path) => return Ok(mapping),
                // It was replaced between our opening it and our lock on it.
                Ok(_) if round < patience => {}
                Ok(_) => break,
                Err(Error::Os { op: "presence", .. }) if round < patience => {}
                Err(error) => return Err(error),
            }
            if round < REPLACING {
                os::yield_now();
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Err(Error::NotFound {
            what: kind.name(),
            name: name.into(),
        })
    }

    /// Attaches to the ring in an open file.
    pub(crate) fn from_fd(fd: OwnedFd, kind: Kind) -> Result<Mapping, Error> {
        let name = "(descriptor)";
        let file = File::from(fd);
        let header = read_header(name, &file, kind)?;
        let nameless = file.metadata().is_ok_and(|meta| meta.nlink() == 0);
        let (uid, root) = (os::inode::effective_user(), 0);
        let trusted = !nameless
            && file
                .metadata()
                .is_ok_and(|meta| meta.uid() == uid || meta.uid() == root);
        if os::shm::is_sealed(&file) != Some(true) && !trusted {
            return Err(Error::NotOurs {
                what: kind.name(),
                name: name.into(),
                why: "its memory is not sealed, so its sender could take it away".into(),
            });
        }
        fill_holes(name, &file, &header, true)?;
        Mapping::map(name, Place::Anonymous, file, header, true, None)
    }

    /// Maps the ring in `file` to look at it only: without keeping its name alive, and without a lock that would be in
    /// the way of one who takes the name away.
    #[cfg(feature = "cli")]
    pub(crate) fn look(name: &str, file: &File, header: Header) -> Result<Mapping, Error> {
        let file = file
            .try_clone()
            .map_err(|error| Error::os("dup", name, error))?;
        Mapping::map(name, Place::Anonymous, file, header, false, None)
    }

    fn map(
        name: &str,
        place: Place,
        file: File,
        header: Header,
        writable: bool,
        huge_refused: Option<io::Error>,
    ) -> Result<Mapping, Error> {
        let fail = |op, error| Error::os(op, name, error);
        let presence = LockFile::reopen(file.as_fd(), writable).map_err(|e| fail("open", e))?;
        // Who only looks on keeps no name alive, and is not in the way of whoever takes one away.
        if writable
            && !presence
                .try_lock(layout::PRESENCE, false)
                .map_err(|e| fail("fcntl", e))?
        {
            // Only someone who is replacing the name holds it exclusively.
            let source = io::Error::from_raw_os_error(libc::EAGAIN);
            return Err(Error::Os {
                op: "presence",
                name: name.into(),
                source,
            });
        }
        let mut options = MmapOptions::new();
        options.len(header.total() as usize).populate();
        let map = if writable {
            options.map_raw(&file)
        } else {
            options.map_raw_read_only(&file)
        };
        let map = map.map_err(|error| fail("mmap", error))?;
        let name = name.to_owned();
        let noted = Noted::new(map.as_mut_ptr(), map.len(), writable);
        Ok(Mapping {
            name,
            file,
            noted,
            map: Arc::new(map),
            header,
            presence,
            place,
            writable,
            huge_refused,
        })
    }

    /// What the ring is; private memory, checked once.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Its name, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The address of the byte at `offset`.
    ///
    /// # Panics
    /// If the offset is outside: offsets come from the checked header.
    pub(crate) fn at(&self, offset: u64) -> *mut u8 {
        assert!(offset < self.map.len() as u64);
        // SAFETY: inside the mapping, checked above.
        unsafe { self.map.as_mut_ptr().add(offset as usize) }
    }

    /// Whether somebody took the memory away, and this process goes on without
    /// ([`crate::survive_truncation`]).
    pub(crate) fn is_lost(&self) -> bool {
        self.noted.is_lost()
    }

    /// Keeps the memory mapped, and nothing else.
    pub(crate) fn keep(&self) -> Arc<dyn std::any::Any + Send + Sync> {
        self.map.clone()
    }

    /// Whether it is mapped for writing.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Why there are no huge pages although they were asked for.
    pub(crate) fn huge_refused(&self) -> Option<&io::Error> {
        self.huge_refused.as_ref()
    }

    /// A file description of one's own, for locks.
    pub(crate) fn lock_file(&self) -> Result<LockFile, Error> {
        LockFile::reopen(self.file.as_fd(), self.writable)
            .map_err(|error| Error::os("open", &self.name, error))
    }

    /// Takes the name away now, whoever is attached: they keep their mapping.
    pub(crate) fn unlink(&self) -> Result<(), Error> {
        let Place::Path(path) = &self.place else {
            return Ok(());
        };
        // Between the look at the name and its removal nobody else may take it away, or it could be another ring's
        // by then. Others do so while nobody is attached, which is not so as long as this lock is held (a forked
        // child has no other one); of several like this one, one goes first.
        let failed = |error| Error::os("fcntl", &self.name, error);
        let lock = self.lock_file()?;
        lock.lock_soon(layout::PRESENCE, false).map_err(failed)?;
        if self.writable {
            lock.lock_soon(layout::UNLINKING, true).map_err(failed)?;
        }
        if !os::shm::is_named(&self.file, path) {
            return Ok(());
        }
        std::fs::remove_file(path).map_err(|error| Error::os("unlink", &self.name, error))
    }

    /// To be called by one who leaves, last of all: takes the name away if nobody else is attached and `drained`
    /// says that nothing undelivered is left. It does not count as attached any more.
    pub(crate) fn unlink_if_last(&self, drained: impl FnOnce() -> bool) {
        let Place::Path(path) = &self.place else {
            return;
        };
        if !self.presence.is_here() {
            // A forked child, whose parent's lock this is. It may have had handles of its own, and be the last one.
            if let Ok(lock) = self.lock_file() {
                self.unlink_if_alone(&lock, path, drained);
            }
            return;
        }
        // Let go of first, then taken for oneself: were the one turned into the other, of two who leave at once each
        // would find the other still there. So the last to let go finds nobody, or one who does this in its place.
        let _ = self.presence.unlock(layout::PRESENCE);
        self.unlink_if_alone(&self.presence, path, drained);
    }

    fn unlink_if_alone(&self, lock: &LockFile, path: &Path, drained: impl FnOnce() -> bool) {
        if matches!(lock.try_lock(layout::PRESENCE, true), Ok(true)) {
            // Looked at under the lock: whoever sent something meanwhile has left again, or is here.
            if drained() && os::shm::is_named(&self.file, path) {
                // Nobody can be told here, and the name does no harm: the next one replaces it.
                let _ = std::fs::remove_file(path);
            }
            let _ = lock.unlock(layout::PRESENCE);
        }
    }
}

impl AsFd for Mapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// That there is memory behind every page, whatever holes the file came with: if there is none left, that
/// is an error here and not SIGBUS later.
fn fill_holes(name: &str, file: &File, header: &Header, writable: bool) -> Result<(), Error> {
    if !writable {
        return Ok(());
    }
    let len = header.total();
    match os::shm::fill_holes(file, len) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOSPC | libc::EDQUOT | libc::ENOMEM)
            ) =>
        {
            Err(Error::NoRoom {
                name: name.into(),
                needed: format!("{len} bytes, of which it lacks some"),
                why: error.to_string(),
                remedy: "somebody made holes in it: have it created anew".into(),
            })
        }
        // A file system that cannot: then its creator could not either, or it is sealed as it is.
        _ => Ok(()),
    }
}

fn make_file(
    name: &str,
    place: &Place,
    mut header: Header,
    making: &Making,
) -> Result<(File, Header, Option<io::Error>), Error> {
    let len = header.total();
    let no_room = |error: io::Error, place: &str| {
        match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EFBIG | libc::EDQUOT | libc::ENOMEM) => Error::NoRoom {
            name: name.into(),
            needed: format!("{len} bytes in {place}"),
            why: error.to_string(),
            remedy: "use a smaller capacity, remove what is left there (`ringway clean`), or enlarge it (`mount -o remount,size=...`)".into(),
        },
        _ => Error::os("fallocate", name, error),
    }
    };
    match place {
        Place::Anonymous => {
            const LABEL: &CStr = c"ringway";
            let mut refused = None;
            if making.huge {
                header.flags |= layout::HUGE;
                let huge = os::shm::memfd_huge(LABEL)
                    .and_then(|file| os::shm::allocate(&file, header.total()).map(|()| file));
                match huge {
                    Ok(file) => return Ok((file, header, None)),
                    Err(error) => refused = Some(error),
                }
                header.flags &= !layout::HUGE;
            }
            let file =
                os::shm::memfd(LABEL).map_err(|error| Error::os("memfd_create", name, error))?;
            os::shm::allocate(&file, len).map_err(|error| no_room(error, "memory"))?;
            Ok((file, header, refused))
        }
        Place::Path(path) => {
            let directory = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let file = os::shm::unnamed(directory, making.mode).map_err(|error| {
                match error.raw_os_error() {
                    Some(libc::ENOENT | libc::ENOTDIR) => Error::NotFound {
                        what: "directory",
                        name: directory.display().to_string(),
                    },
                    Some(libc::EOPNOTSUPP) => Error::Unsupported {
                        mechanism: "this file system",
                        what: "make a file without a name (O_TMPFILE)",
                        remedy: "use a name without a slash, or a file on tmpfs, ext4, xfs or btrfs",
                    },
                    _ => Error::os("open", directory.display().to_string(), error),
                }
            })?;
            os::shm::allocate(&file, len)
                .map_err(|error| no_room(error, &directory.display().to_string()))?;
            let huge = making
                .huge
                .then(|| io::Error::new(io::ErrorKind::Unsupported, "a named ring has none"));
            Ok((file, header, huge))
        }
    }
}

pub(crate) fn open(
    name: &str,
    path: &Path,
    what: &'static str,
    writable: bool,
) -> Result<File, Error> {
    os::shm::open(path, writable).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => Error::NotFound {
            what,
            name: name.into(),
        },
        Some(libc::ELOOP) => not_ours(what, name, "it is a symbolic link, which is not followed"),
        Some(libc::EISDIR) => not_ours(what, name, "it is a directory"),
        Some(libc::ENXIO) => not_ours(what, name, "it is a FIFO or a socket"),
        _ => Error::os("open", name, error),
    })
}

fn not_ours(what: &'static str, name: &str, why: impl Into<String>) -> Error {
    Error::NotOurs {
        what,
        name: name.into(),
        why: why.into(),
    }
}

/// Reads and checks what a file begins with. All that is believed later is in the private copy.
pub(crate) fn read_header(name: &str, file: &File, kind: Kind) -> Result<Header, Error> {
    let header = read_any_header(name, file)?;
    if header.kind != kind as u32 {
        let found = Kind::from_code(header.kind).map_or("something else", Kind::name);
        return Err(not_ours(kind.name(), name, format!("it is a {found}")));
    }
    Ok(header)
}

/// As [`read_header`], for a ring of any kind.
pub(crate) fn read_any_header(name: &str, file: &File) -> Result<Header, Error> {
    let what = "ring";
    let meta = file
        .metadata()
        .map_err(|error| Error::os("fstat", name, error))?;
    if !meta.is_file() {
        return Err(not_ours(what, name, "it is not a regular file"));
    }
    let mut bytes = [0; layout::HEADER];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(not_ours(
                what,
                name,
                format!("it has only {} bytes", meta.size()),
            ));
        }
        Err(error) => return Err(Error::os("read", name, error)),
    }
    let header = Header::from_bytes(bytes);
    if header.magic != layout::MAGIC {
        return Err(not_ours(what, name, "it does not begin as a ring does"));
    }
    if header.endian != layout::ENDIAN || header.version != layout::VERSION {
        let (found, expected) = (header.version, layout::VERSION);
        return Err(Error::Version {
            name: name.into(),
            found,
            expected,
        });
    }
    let plausible = header.control_len <= 1 << 32
        && header.data_len <= 1 << 40
        && header.participants <= 1 << 16
        && header.total() == meta.size();
    if !plausible {
        return Err(not_ours(
            what,
            name,
            format!(
                "its header speaks of {} bytes, the file has {}",
                header_total(&header),
                meta.size()
            ),
        ));
    }
    Ok(header)
}

fn header_total(header: &Header) -> String {
    if header.control_len <= 1 << 32 && header.data_len <= 1 << 40 {
        header.total().to_string()
    } else {
        "impossibly many".into()
    }
}

/// What [`remove_if_abandoned`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// The name is gone, or was already.
    Removed,
    /// Somebody is attached: nothing was done.
    InUse,
    /// Nobody is attached, and it is kept as the caller wants it.
    Kept,
}

/// Takes away the name at `path` if all who were attached are dead or gone, unless `keep`, which is
/// asked while nobody can attach, says otherwise. Who attaches meanwhile finds either the ring or no
/// name.
pub(crate) fn remove_if_abandoned(
    name: &str,
    path: &Path,
    keep: impl FnOnce() -> bool,
) -> Result<Removal, Error> {
    let file = match open(name, path, "ring", true) {
        Ok(file) => file,
        // Somebody else removed it just now.
        Err(Error::NotFound { .. }) => return Ok(Removal::Removed),
        Err(error) => return Err(error),
    };
    match read_any_header(name, &file) {
        // Whatever its version: that of the lock on presence has never changed.
        Ok(_) | Err(Error::Version { .. }) => {}
        Err(error) => return Err(error),
    }
    let lock = LockFile::reopen(file.as_fd(), true).map_err(|e| Error::os("open", name, e))?;
    let alone = lock
        .try_lock(layout::PRESENCE, true)
        .map_err(|e| Error::os("fcntl", name, e))?;
    if !alone {
        return Ok(Removal::InUse);
    }
    if !os::shm::is_named(&file, path) {
        return Ok(Removal::Removed);
    }
    if keep() {
        return Ok(Removal::Kept);
    }
    std::fs::remove_file(path).map_err(|error| Error::os("unlink", name, error))?;
    Ok(Removal::Removed)
}

impl Making {
    /// As [`remove_if_abandoned`], for somebody who wants the name: one in use is in the way, and so is one
    /// of another version.
    fn make_way(&self, name: &str, path: &Path, kind: u32) -> Result<(), Error> {
        let what = Kind::from_code(kind).map_or("ring", Kind::name);
        if let Ok(file) = open(name, path, what, true) {
            read_any_header(name, &file)?;
        }
        let keep = || self.abandoned == Abandoned::Keep;
        match remove_if_abandoned(name, path, keep)? {
            Removal::Removed => Ok(()),
            Removal::InUse | Removal::Kept => Err(Error::AlreadyExists {
                what,
                name: name.into(),
            }),
        }
    }
}

/// Whether there is something under that name, whoever may use it.
pub(crate) fn exists(name: &str) -> bool {
    match Place::of(name) {
        Ok(Place::Path(path)) => std::fs::symlink_metadata(path).is_ok(),
        _ => false,
    }
}

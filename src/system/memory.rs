//! Memory in mappings of its own: forked children share it, find it wiped, or can't write to it. See `mmap(2)`.

use std::hint::black_box;
use std::io;
use std::mem::forget;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc::c_void;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use nix::unistd::ftruncate;

/// The largest block that `malloc(3)` keeps for the next request of its size, in bytes.
const LARGEST_KEPT: usize = 1032;
/// Larger than any hole in the heap of a process that has just started, and smaller than what gets a mapping of its own.
const LARGE: usize = 100 * 1024;

/// Uses up the holes in the heap, so that what is allocated from now on lies side by side. After a fork, parent and child copy
/// each page that they write, and in the holes a handler's blocks are in a dozen more pages.
pub(crate) fn fill_heap_holes() {
    let block = |size| black_box(Vec::<u8>::with_capacity(size));
    let behind = block(LARGE);
    let end = behind.as_ptr().addr();
    drop(behind);
    for size in (24..LARGE).rev().step_by(16) {
        // There are far fewer holes of a size.
        for _ in 0..100 {
            let block = block(size);
            let is_hole = block.as_ptr().addr() < end;
            if is_hole || size <= LARGEST_KEPT {
                forget(block);
            }
            if !is_hole {
                break;
            }
        }
    }
}

/// A mapping that begins at the start of a page, zeroed and readable.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<c_void>,
    length: NonZeroUsize,
}

impl Mapping {
    /// `flags` say whether forked children share the mapping (`MAP_SHARED`) or get a copy of it (`MAP_PRIVATE`).
    fn new(length: usize, flags: MapFlags) -> io::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start =
            unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }?;
        Ok(Self { start, length })
    }

    /// Maps a file that has at least this length and never becomes shorter. Forked children share the mapping.
    fn of_file(file: &OwnedFd, length: usize, protection: ProtFlags) -> io::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self { start, length })
    }

    /// Says what forked children get of the mapping.
    fn advise(&self, advice: MmapAdvise) -> io::Result<()> {
        // SAFETY: the mapping is ours, and the advice that this file gives changes only what a child sees.
        Ok(unsafe { madvise(self.start, self.length.get(), advice) }?)
    }

    pub(super) fn start<T>(&self) -> NonNull<T> {
        self.start.cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours. Its users own this value, and lend its bytes for no longer than they live. Other
        // processes keep theirs.
        unsafe { munmap(self.start, self.length.get()) }.unwrap_or_default();
    }
}

/// A secret of `N` bytes, all 0 at first: forked children find zeros (`MADV_WIPEONFORK` in `madvise(2)`, since Linux 4.14).
#[derive(Debug)]
pub struct WipeOnFork<const N: usize>(Mapping);

impl<const N: usize> WipeOnFork<N> {
    pub fn new() -> io::Result<Self> {
        let secret = Mapping::new(N, MapFlags::MAP_PRIVATE)?;
        secret.advise(MmapAdvise::MADV_WIPEONFORK)?;
        Ok(Self(secret))
    }
}

impl<const N: usize> Deref for WipeOnFork<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        // SAFETY: the mapping has that many bytes, all initialised, lives as long as `self`, and is of this process alone.
        unsafe { self.0.start().as_ref() }
    }
}

impl<const N: usize> DerefMut for WipeOnFork<N> {
    fn deref_mut(&mut self) -> &mut [u8; N] {
        // SAFETY: as in `deref`; and `self` is borrowed mutably, so there is no other borrow.
        unsafe { self.0.start().as_mut() }
    }
}

/// Memory of `length` bytes, zeroed, that forked children can only read, whatever they try (`F_SEAL_FUTURE_WRITE` in
/// `F_ADD_SEALS(2const)`, since Linux 5.1). This process and the children that it chooses can write it.
///
/// It is mapped twice. The writable mapping was made before the seal, and children do not inherit it. After the seal no
/// process can make another one, however it gets at the file, and the mapping for readers can't become writable.
#[derive(Debug)]
pub struct SealedMemory {
    /// For writers. Only this process, and children made in [`Self::share_with_child`], may use the address.
    pub(super) writable: Mapping,
    /// The same bytes for readers. A write to them ends the process.
    pub(super) readable: Mapping,
}

impl SealedMemory {
    pub fn new(length: usize) -> io::Result<Self> {
        let file = memfd_create(c"loteria", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        ftruncate(&file, length.try_into().map_err(io::Error::other)?)?;
        let writable = Mapping::of_file(&file, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        let size = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
        let seals = size | SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        writable.advise(MmapAdvise::MADV_DONTFORK)?;
        Ok(Self { readable: Mapping::of_file(&file, length, ProtFlags::PROT_READ)?, writable })
    }

    /// Runs `fork`. The child that it makes inherits the writable mapping; no other child does. If this fails after the
    /// fork, there must not be another fork.
    pub fn share_with_child<T>(&self, fork: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.writable.advise(MmapAdvise::MADV_DOFORK)?;
        let forked = fork();
        self.writable.advise(MmapAdvise::MADV_DONTFORK)?;
        forked
    }
}

/// `N` numbers that forked children share with their parent, without a lock; all 0 at first. Any of these processes may
/// write any number at any time, so nothing may depend on them.
#[derive(Debug)]
pub struct SharedWords<const N: usize>(Mapping);

impl<const N: usize> SharedWords<N> {
    pub fn new() -> io::Result<Self> {
        Ok(Self(Mapping::new(size_of::<[AtomicU64; N]>(), MapFlags::MAP_SHARED)?))
    }
}

impl<const N: usize> Deref for SharedWords<N> {
    type Target = [AtomicU64; N];

    fn deref(&self) -> &[AtomicU64; N] {
        // SAFETY: the mapping has this size, is page-aligned and lives as long as `self`. All bytes are valid numbers,
        // whatever another process writes, and a write at the same time is no race, as they are atomic.
        unsafe { self.0.start().as_ref() }
    }
}

//! Bytes that some processes write and others can only read, and a robust process-shared mutex for the writers: see
//! `pthread_mutexattr_setpshared(3)`, `pthread_mutexattr_setrobust(3)`.
//!
//! If a process dies with the mutex locked, the next process that locks it repairs it. The bytes are then as the dead process
//! left them: its last stores may be missing.
//!
//! glibc trusts the memory of a mutex: it takes the mutex's kind from there, and follows list pointers. So a process that may
//! be hostile must not be able to write it. It is in [`SealedMemory`], which handlers can only read.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, Ordering, fence};

use nix::errno::Errno;
use nix::libc;

use super::memory::SealedMemory;

/// What the memory contains.
#[repr(C)]
struct Shared<const N: usize> {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    bytes: [AtomicU8; N],
}

/// `N` bytes and their mutex, for the processes that may write both.
#[derive(Debug)]
pub struct SharedMutex<const N: usize>(SealedMemory);

/// The bytes of a [`SharedMutex`], for processes that can only read them.
#[derive(Debug, Clone, Copy)]
pub struct BytesView<'a>(&'a [AtomicU8]);

impl BytesView<'_> {
    /// Reads a byte. What is read after it is at least as new. A byte that does not exist is 0.
    pub fn load(&self, index: usize) -> u8 {
        // Of all atomic accesses, only a relaxed load is allowed in read-only memory.
        let value = self.0.get(index).map_or(0, |byte| byte.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        value
    }
}

impl<const N: usize> SharedMutex<N> {
    /// Maps bytes that are all 0, unlocked.
    pub fn new() -> io::Result<Self> {
        let this = Self(SealedMemory::new(size_of::<Shared<N>>())?);
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: `attributes` points to writable memory of the right type.
        check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        // SAFETY: `attributes` has been initialised.
        check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: as above.
        check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
        // SAFETY: the mutex is zeroed memory that no other process has seen yet, and it never moves.
        check(unsafe { libc::pthread_mutex_init(this.mutex(), attributes) })?;
        // SAFETY: `attributes` has been initialised and is not used again.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) })?;
        Ok(this)
    }

    fn shared(&self) -> &Shared<N> {
        // SAFETY: the memory has this size, is page-aligned and lives as long as `self`. All bytes are valid atomics. The
        // mutex is behind UnsafeCell, so this borrow claims nothing about what it contains. Children that lack the mapping
        // have no `SharedMutex`: they get a `BytesView`.
        unsafe { self.0.writable.start().as_ref() }
    }

    /// What children that can't write get.
    pub fn view(&self) -> BytesView<'_> {
        // SAFETY: as above, and every child has this mapping. A view does nothing but read the bytes.
        let shared: &Shared<N> = unsafe { self.0.readable.start().as_ref() };
        BytesView(&shared.bytes)
    }

    /// Runs `fork`, whose child may use the mutex: see [`SealedMemory::share_with_child`].
    pub fn share_with_child<T>(&self, fork: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.0.share_with_child(fork)
    }

    fn mutex(&self) -> *mut libc::pthread_mutex_t {
        self.shared().mutex.get()
    }

    /// The bytes, for reads and writes with or without the lock.
    pub fn bytes(&self) -> &[AtomicU8; N] {
        &self.shared().bytes
    }

    /// Locks the mutex. None if it is locked already.
    pub fn try_lock(&self) -> io::Result<Option<Guard<'_, N>>> {
        // SAFETY: the mutex was initialised in `new` and lives as long as `self`.
        let code = unsafe { libc::pthread_mutex_trylock(self.mutex()) };
        match Errno::from_raw(code) {
            Errno::EBUSY => return Ok(None),
            // SAFETY: this process has just locked the mutex, and its state is "inconsistent", as this call demands.
            Errno::EOWNERDEAD => check(unsafe { libc::pthread_mutex_consistent(self.mutex()) })?,
            _ => check(code)?,
        }
        Ok(Some(Guard(self)))
    }
}

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct Guard<'a, const N: usize>(&'a SharedMutex<N>);

impl<const N: usize> Drop for Guard<'_, N> {
    fn drop(&mut self) {
        // SAFETY: a guard exists only while this thread holds the lock: it cannot go to another thread.
        unsafe { libc::pthread_mutex_unlock(self.0.mutex()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::waitpid;
    use nix::unistd::{ForkResult, fork};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the tests have threads, which `fork_child` refuses")]
    fn a_mutex_whose_owner_died_is_repaired_for_the_next_and_stays_good() {
        let shared = SharedMutex::<1>::new().unwrap();
        // SAFETY: the child does nothing that takes a lock of this process or memory from its allocator.
        let forked = shared.share_with_child(|| Ok(unsafe { fork() }?)).unwrap();
        let ForkResult::Parent { child } = forked else {
            if let Ok(Some(guard)) = shared.try_lock() {
                shared.bytes()[0].store(7, Ordering::SeqCst);
                std::mem::forget(guard);
            }
            // SAFETY: ends the process at once, with the lock held.
            unsafe { libc::_exit(0) }
        };
        waitpid(child, None).unwrap();
        let guard = shared.try_lock().unwrap().unwrap();
        assert_eq!(shared.view().load(0), 7);
        assert!(shared.try_lock().unwrap().is_none());
        drop(guard);
        assert!(shared.try_lock().unwrap().is_some());
    }
}

//! Locks that a panic cannot close. No lock of the program is held across a wait, so only a panic could
//! poison one, and that ends the run, the test or the connection in which it happened.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, also one that a panic poisoned.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unwraps a mutex into its value, also one that a panic poisoned.
pub fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

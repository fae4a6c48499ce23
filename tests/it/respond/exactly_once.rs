//! An answer is paid for once, whatever dies.

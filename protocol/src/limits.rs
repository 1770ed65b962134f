//! Every bound of the wire and the store in one place.

/// Longest name of a tenant, site or host.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest frame between a host and central, header apart.
pub const FRAME_BYTES_MAX: usize = 2 << 20;
/// Longest frame before a host has proven who it is.
pub const ENROL_FRAME_BYTES_MAX: usize = 32 << 10;
/// Longest plaintext of one record.
pub const RECORD_BYTES_MAX: usize = 256 << 10;
/// Longest plaintext of one bundle.
pub const BUNDLE_BYTES_MAX: usize = 1 << 20;
/// Deepest path below a record type.
pub const PATH_LEVELS_MAX: usize = 16;
/// Longest path segment.
pub const SEGMENT_BYTES_MAX: usize = 255;
/// Operations in one store transaction, and how many of them a decision may use.
pub const TRANSACTION_OPS_MAX: usize = 128;
/// Operations that one decision may return; the rest is for audit lines and cursors.
pub const DECIDE_OPS_MAX: usize = 96;
/// Bytes of keys and values in one store transaction.
pub const TRANSACTION_BYTES_MAX: usize = 1 << 20;
/// Bytes that one decision may return.
pub const DECIDE_BYTES_MAX: usize = 768 << 10;
/// Longest store key.
pub const KEY_BYTES_MAX: usize = 480;

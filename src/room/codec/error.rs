//! Errors of decoding.

/// Reason for bytes that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// They are of another version, or there are none.
    #[error("the version of the bytes is not known")]
    UnknownVersion,
    /// They are not what the version says, or hold an invalid id or JSON.
    #[error("the bytes are malformed")]
    Malformed,
}

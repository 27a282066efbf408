//! The code of methods, in the order in which it is looked up.

use super::builtin;
use super::method::{MethodCall, MethodError, MethodOutcome};

/// All code of methods, which an object asks for each call.
#[derive(Debug, Default)]
pub struct Methods {}

impl Methods {
    /// Calls a method. The caller applies the outcome, and makes one call at a time for each object.
    ///
    /// # Errors
    /// [`MethodError`]; nothing is to be applied.
    pub async fn call(&self, call: MethodCall) -> Result<MethodOutcome, MethodError> {
        builtin::call(&call).unwrap_or(Err(MethodError::NotFound))
    }
}

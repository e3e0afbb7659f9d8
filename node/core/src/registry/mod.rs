//! (registry branch)
use serde::{Deserialize, Serialize};
/// placeholder
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /** x */
    X,
}

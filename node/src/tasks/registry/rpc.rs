//! What the registry's messages are called in traces and metrics, and what became of a call.
//!
//! Names only: nothing here travels.

use sibyl_core::registry::Message;

use crate::peer::{CallError, Reason};
use crate::telemetry::Rpc;
use crate::telemetry::metrics::RpcResult;

/// The result of a call that got no answer.
pub fn result_of_call(error: &CallError) -> RpcResult {
    match error.reason {
        Reason::Timeout => RpcResult::Timeout,
        Reason::Remote(_) | Reason::TooLarge => RpcResult::Rejected,
        _ => RpcResult::Unavailable,
    }
}

/// What a message is called in traces and metrics; `None` for answers, which are part of the call they answer.
pub fn rpc_of_message(message: &Message) -> Option<Rpc> {
    match message {
        Message::Prepare { .. } => Some(Rpc::RegistryPrepare),
        Message::Accept { .. } => Some(Rpc::RegistryAccept),
        Message::Chosen { .. } => Some(Rpc::RegistryLearn),
        Message::Fetch { .. } => Some(Rpc::RegistryFetch),
        Message::Promise { .. }
        | Message::Accepted { .. }
        | Message::Refused { .. }
        | Message::Abstain { .. }
        | Message::Differs { .. } => None,
    }
}

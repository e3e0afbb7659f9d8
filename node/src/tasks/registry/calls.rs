//! What the registry's messages are called in traces and metrics.
//!
//! Questions are calls; answers travel as messages of their own and are part of the call they answer.

use sibyl_core::registry::Message;

use crate::telemetry::Rpc;

/// What a message is called in traces; `None` for answers, which are part of the call they answer.
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

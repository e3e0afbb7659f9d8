//! What a node serves while it is no member, and how it is taken down again before the node starts.
//!
//! Health, and why there is nothing else; the ports are those of the node that follows.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::bind;
use crate::config::Config;
use crate::http;

/// Listeners of a node that waits.
pub(super) struct Waiting {
    told: watch::Sender<http::Waiting>,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<usize>>,
}

impl Waiting {
    /// Serves, and says this.
    pub(super) async fn start(config: &Config, first: http::Waiting) -> anyhow::Result<Self> {
        // Taken now, so that somebody else's port is said at once.
        drop(bind(config.peer_listen, "peer-listen").await?);
        let (told, hears) = watch::channel(first);
        let (stop, _) = watch::channel(false);
        let mut servers = Vec::new();
        for (address, flag) in [
            (Some(config.listen), "listen"),
            (config.admin_listen, "admin-listen"),
        ] {
            let Some(address) = address else { continue };
            let server = http::Server {
                listener: bind(address, flag).await?,
                router: http::waiting(hears.clone()),
                limits: http::Limits::default(),
            };
            let mut stopped = stop.subscribe();
            servers.push(tokio::spawn(server.serve(async move {
                // Closed: waiting failed, and the node ends.
                let _gone = stopped.wait_for(|stopped| *stopped).await;
            })));
        }
        Ok(Self {
            told,
            stop,
            servers,
        })
    }

    /// Says something else from now on.
    pub(super) fn tell(&self, what: http::Waiting) {
        self.told.send_replace(what);
    }

    /// Says something else each time these reasons change.
    pub(super) fn follow(&self, mut reasons: watch::Receiver<Vec<String>>) {
        let told = self.told.clone();
        tokio::spawn(async move {
            while reasons.changed().await.is_ok() {
                let now = reasons.borrow_and_update().clone();
                told.send_modify(|told| told.reasons = now);
            }
        });
    }

    /// Gives the ports free.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        for server in self.servers {
            let _cut: usize = server.await?;
        }
        Ok(())
    }
}

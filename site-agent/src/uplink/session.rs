//! One session over QUIC: its connection, its messages' way in and out, its end. What is said is [`super::dialogue`].

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::codec;
use holdfast_protocol::limits::FRAME_BYTES_MAX;
use holdfast_protocol::signed;
use holdfast_protocol::wire::{CloseCode, EXPORTER_QUOTE, FromCentral, FromHost};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::chip::BoxFuture;
use crate::host::Host;
use crate::join::HostKeys;
use crate::quic::{self, Link, Lost};
use crate::uplink::core::End;
pub use crate::uplink::dialogue::Observer;
use crate::uplink::dialogue::{Dialogue, Say, Stop};

/// From the hello to the welcome.
const WELCOME_LIMIT: Duration = Duration::from_secs(10);
/// Between looks at what was read here and is to be told.
const READS_TOLD_EVERY: Duration = Duration::from_secs(5);
/// Messages read and not yet done.
const INBOX_MAX: usize = 4;

/// Runs a session on a fresh connection to its end; says what ended it.
pub async fn run(host: &Arc<Host>, link: Link, observer: &dyn Observer) -> Stop {
    let stop = match Session::begin(host, link) {
        Ok(mut session) => {
            let stop = session.serve(observer).await;
            session.close(stop.code()).await;
            stop
        }
        Err(stop) => stop,
    };
    host.status.change(|standing| {
        (standing.connected, standing.trusted) = (false, false);
        standing.error = (!matches!(stop, Stop::Certified)).then(|| stop.to_string());
    });
    match stop {
        Stop::Stopping | Stop::Certified => tracing::debug!("session ended"),
        Stop::Lost(_) | Stop::NoWelcome => tracing::warn!(error = %stop, "session ended"),
        _ => tracing::error!(error = %stop, "session ended"),
    }
    if stop.end() == End::CutOff && !matches!(stop, Stop::Notice(_)) {
        // Central's own word on a connection that only central can have; the signed notice is fetched next.
        host.shut("central").await;
    }
    stop
}

struct Session {
    host: Arc<Host>,
    dialogue: Dialogue,
    way: Way,
    inbox: mpsc::Receiver<Result<FromCentral, Lost>>,
    reader: JoinHandle<()>,
    endpoint: Endpoint,
}

/// The way to central.
struct Way {
    connection: Connection,
    to: SendStream,
}

impl Say for Way {
    fn say<'a>(&'a mut self, message: &'a FromHost) -> BoxFuture<'a, Result<(), Stop>> {
        Box::pin(async move {
            match quic::write(&mut self.to, &codec::encode(message)).await {
                Ok(()) => Ok(()),
                Err(()) => Err(quic::ended(&self.connection).await.into()),
            }
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Session {
    fn begin(host: &Arc<Host>, link: Link) -> Result<Self, Stop> {
        let exporter = link.exporter(EXPORTER_QUOTE)?;
        host.ladder.reached_by(link.connection.local_ip());
        let dialogue = Dialogue::new(host.local.clone(), host.tpm.clone(), exporter);
        let (connection, to, from, endpoint) = link.split();
        let (deliver, inbox) = mpsc::channel(INBOX_MAX);
        let reader = tokio::spawn(read(connection.clone(), from, deliver));
        Ok(Self { host: host.clone(), dialogue, way: Way { connection, to }, inbox, reader, endpoint })
    }

    async fn serve(&mut self, observer: &dyn Observer) -> Stop {
        match self.converse(observer).await {
            Ok(()) => Stop::Stopping,
            Err(stop) => stop,
        }
    }

    async fn converse(&mut self, observer: &dyn Observer) -> Result<(), Stop> {
        let mut stopping = self.host.stopping.subscribe();
        let mut sealed = self.host.seal.watch();
        sealed.mark_unchanged();
        if *stopping.borrow_and_update() {
            return Ok(());
        }
        self.dialogue.hello(&mut self.way).await?;
        let welcome = tokio::time::timeout(WELCOME_LIMIT, self.inbox.recv()).await.map_err(|_| Stop::NoWelcome)?;
        self.dialogue.welcomed(received(welcome)?)?;
        tracing::info!(peer = %self.way.connection.remote_address(), "connected to central");
        observer.welcomed();
        let mut reads = tokio::time::interval(READS_TOLD_EVERY);
        reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // What a notice made of the seal is told before the connection ends for the same notice.
                Ok(()) = sealed.changed() => {
                    // Unsealing is told by confirming the seal key.
                    if *sealed.borrow_and_update() {
                        self.dialogue.shut();
                        self.way.say(&FromHost::Sealed(true)).await?;
                    }
                }
                message = self.inbox.recv() => {
                    self.take(received(message)?, observer).await?;
                    self.tell_keys().await?;
                }
                _ = reads.tick() => {
                    let items = self.dialogue.reads_due();
                    if !items.is_empty() {
                        self.way.say(&FromHost::Reads(items)).await?;
                    }
                }
                _ = stopping.changed() => return Ok(()),
            }
        }
    }

    /// Signs what this host has to say of its keys. Without its TPM it can't; then it is tried again with the next message.
    async fn tell_keys(&mut self) -> Result<(), Stop> {
        let Some(receipt) = self.dialogue.receipt_due()? else { return Ok(()) };
        let state = self.host.file.get();
        let chain = state.membership.as_ref().map(|member| member.dist_chain.as_slice());
        let Some([certificate, issuer, ..]) = chain else { return Ok(()) };
        let keys = match HostKeys::open(&*self.host.tpm, &state).await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(%error, "a receipt for new keys could not be signed");
                return Ok(());
            }
        };
        let signed = signed::sign(&receipt, &keys.quic, certificate.clone());
        self.way.say(&FromHost::Rotated { receipt: signed, issuer: issuer.clone() }).await?;
        self.dialogue.receipt_told(&receipt);
        Ok(())
    }

    /// Handles a message. Being cut off waits for no TPM or disk: it ends whatever is at work, save what a notice orders.
    async fn take(&mut self, message: FromCentral, observer: &dyn Observer) -> Result<(), Stop> {
        if matches!(message, FromCentral::Standing(_)) {
            return self.dialogue.handle(&mut self.way, message, observer).await;
        }
        let connection = self.way.connection.clone();
        tokio::select! {
            handled = self.dialogue.handle(&mut self.way, message, observer) => handled,
            stop = cut_off(&connection) => Err(stop),
        }
    }

    async fn close(mut self, code: CloseCode) {
        if self.way.connection.close_reason().is_none() {
            // What was sent last, an alarm perhaps, is to arrive before the end.
            let _ = self.way.to.finish();
            let _ = tokio::time::timeout(Duration::from_millis(500), self.way.to.stopped()).await;
            self.way.connection.close((code as u32).into(), b"");
        }
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}

/// Waits until central ends the connection because of this host's standing.
async fn cut_off(connection: &Connection) -> Stop {
    let stop = Stop::Lost(quic::lost(connection.closed().await));
    match stop.end() {
        End::CutOff => stop,
        _ => std::future::pending().await,
    }
}

fn received(message: Option<Result<FromCentral, Lost>>) -> Result<FromCentral, Stop> {
    message.ok_or(Stop::Protocol("nothing more"))?.map_err(Stop::Lost)
}

/// Reads beside the handling, for a frame must be read whole.
async fn read(connection: Connection, mut from: RecvStream, deliver: mpsc::Sender<Result<FromCentral, Lost>>) {
    loop {
        let message = quic::receive(&connection, &mut from, FRAME_BYTES_MAX).await;
        let ended = message.is_err();
        if deliver.send(message).await.is_err() || ended {
            return;
        }
    }
}

//! A listener of WASI 0.3, which is there as long as its socket or the stream of its connections is: the guest may drop either
//! first.
//!
//! The host's implementation tells nobody when the stream ends. But the socket and the stream have the check of addresses that
//! the socket was made with, and so what that check holds. The connections have it too, without keeping the listener: so
//! what is left of a listener is asked whether it listens still when its port or its place is wanted.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpSocket;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

use super::Place;
use crate::network::ListenGuard;

/// What a socket has that can become a listener.
pub(super) struct Kept(Mutex<Held>);

struct Held {
    place: Option<Place>,
    listening: Option<ListenGuard>,
}

impl Kept {
    pub(super) fn new(place: &Place) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Held { place: Some(Arc::clone(place)), listening: None })))
    }

    pub(super) fn listens(&self, guard: ListenGuard) {
        self.0.lock().listening = Some(guard);
    }

    pub(super) fn is_listener(&self) -> bool {
        self.0.lock().listening.is_some()
    }

    /// Gives back what a listener had whose socket and stream are gone; whether it is one.
    pub(super) fn gave_up(&self) -> bool {
        let mut held = self.0.lock();
        let gone = held.listening.as_ref().is_some_and(|guard| !is_listened_on(guard.actual()));
        if gone {
            (held.place, held.listening) = (None, None);
        }
        gone
    }
}

/// Whether a socket of this machine listens there: of those that let others have their address none else keeps it.
fn is_listened_on(address: SocketAddr) -> bool {
    let asks = || -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    };
    asks().is_err()
}

/// What a guest's socket is made with that is to hold something. Every address was judged before.
pub(super) fn holding<T: Send + Sync + 'static>(held: T) -> WasiCtx {
    let mut wasi = WasiCtx::builder();
    allow(&mut wasi, held);
    wasi.build()
}

pub(super) fn allow<T: Send + Sync + 'static>(wasi: &mut WasiCtxBuilder, held: T) {
    wasi.allow_tcp(true).allow_udp(true).socket_addr_check(move |_, _| {
        let _held = &held;
        Box::pin(ready(true))
    });
}

//! What one instance's store holds, and what all instances of a container share.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::ResourceTable;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::engine::Engine;
use super::files::Files;
use super::guests::Place;
use super::limits::{Limiter, Usage};
use super::linker::Prepared;
use super::meter::{Cpu, Favour, Meter};
use super::outgoing::Outgoing;
use super::output::Pipe;
use super::room::Room;
use super::sockets::{self, Sockets};
use crate::backend::{LogSink, Stream};
use crate::image::Image;
use crate::network::PodNetwork;

/// Bytes of one `fields` resource: what servers commonly accept.
const FIELDS: usize = 16 << 10;

/// The most that one entry of a resource table keeps in the host: its `fields`. What a container can make the host keep is so
/// bounded by its memory limit once more, and the few entries that each instance has, whatever its tables are filled with.
const TABLE_ENTRY: u64 = FIELDS as u64;

/// Entries of an instance's table, however small its share is, and however large, while its container has some left.
pub(super) const ENTRIES: RangeInclusive<u64> = 512..=65_536;

/// Entries that an instance has also when its container's others have all: more than its requests need.
const OWN_ENTRIES: u64 = 128;

/// Bytes in the host of one handle of a guest, with the call, stream or future behind it.
const HANDLE: u64 = 2 << 10;

/// Handles of an instance, however small its share is, and however large.
const HANDLES: RangeInclusive<u64> = 2048..=100_000;

/// Bytes that one call, or one step of a stream between two guests, may bring to the host.
const CALL: usize = 16 << 20;

/// Random bytes that one call may ask for: they are made in one go, a few milliseconds for so many.
const RANDOM: u64 = 1 << 20;

/// What a guest is given, the same for every instance of its container.
pub(super) struct Guest {
    pub(super) engine: Engine,
    pub(super) prepared: Arc<Prepared>,
    /// Keeps the image in hand while anything runs it: all its containers share one.
    pub(super) _image: Arc<Image>,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) working_dir: Option<String>,
    pub(super) log: Arc<dyn LogSink>,
    pub(super) network: Arc<PodNetwork>,
    pub(super) outgoing: Arc<super::client::Client>,
    pub(super) usage: Arc<Usage>,
    /// Sockets and files that its instances may open still, and connections for their outgoing requests.
    pub(super) sockets: Arc<Room>,
    /// Connections to its server.
    pub(super) connections: Arc<Room>,
    pub(super) cpu: Arc<Cpu>,
    pub(super) favour: Favour,
    pub(super) requests: AtomicU64,
    /// Entries of an instance's table, at least and at most.
    pub(super) entries: RangeInclusive<u64>,
    /// Entries that its instances may have still beside their own.
    pub(super) entries_left: Arc<Semaphore>,
}

/// One instance's view of the host.
pub(super) struct GuestState {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    network: Arc<PodNetwork>,
    sockets: Sockets,
    files: Files,
    /// Its share of its container's entries.
    _entries: Option<OwnedSemaphorePermit>,
    limiter: Limiter,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
}

impl Guest {
    /// A store for a new instance, one of at most so many, and whether it was denied memory, which is asked after its end.
    pub(super) fn store(
        &self,
        of: usize,
        place: &Arc<Place>,
    ) -> wasmtime::Result<(Store<GuestState>, Arc<std::sync::atomic::AtomicBool>)> {
        let mut limiter = Limiter::new(Arc::clone(&self.usage));
        let copied = self.copied();
        if !limiter.charge(copied) {
            wasmtime::bail!("the memory limit has no room for {copied} bytes of arguments and environment");
        }
        let denied = limiter.denied();
        let stdout = Pipe::new(Arc::clone(&self.log), Stream::Stdout, Arc::clone(place));
        let stderr = Pipe::new(Arc::clone(&self.log), Stream::Stderr, Arc::clone(place));
        let mut table = ResourceTable::new();
        let share = |each: u64, of_all: &RangeInclusive<u64>| {
            let share = self.usage.limit() / each / (of as u64).max(1);
            usize::try_from(share.clamp(*of_all.start(), *of_all.end())).unwrap_or(usize::MAX)
        };
        let (capacity, entries) = self.entries(share(TABLE_ENTRY, &self.entries));
        table.set_max_capacity(capacity);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELDS);
        let state = GuestState {
            wasi: self.wasi(&stdout, &stderr),
            table,
            http,
            outgoing: Outgoing::new(Arc::clone(&self.outgoing), Arc::clone(&self.network), Arc::clone(&self.sockets)),
            network: Arc::clone(&self.network),
            sockets: Sockets::new(Arc::clone(&self.network), Arc::clone(&self.sockets)),
            files: Files::new(Arc::clone(&self.sockets)),
            _entries: entries,
            limiter,
            stdout,
            stderr,
        };
        let mut store = Store::new(self.engine.raw(), state);
        store.limiter(|state| &mut state.limiter);
        store.set_max_component_handles(share(HANDLE, &HANDLES));
        store.set_hostcall_fuel(CALL);
        store.set_epoch_deadline(1);
        let place = Arc::clone(place);
        store.epoch_deadline_callback(move |_| {
            place.tick();
            Ok(UpdateDeadline::Yield(1))
        });
        Ok((store, denied))
    }

    /// All entries that a container with so much memory has for its instances, beside their own.
    pub(super) fn all_entries(memory: u64) -> Arc<Semaphore> {
        let all = (memory / TABLE_ENTRY).max(*ENTRIES.start());
        Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)))
    }

    /// How many entries an instance has that may have so many, and which of them are the container's.
    fn entries(&self, share: usize) -> (usize, Option<OwnedSemaphorePermit>) {
        let own = usize::try_from(OWN_ENTRIES).unwrap_or(usize::MAX).min(share);
        let more = (share - own).min(self.entries_left.available_permits());
        let taken =
            u32::try_from(more).ok().and_then(|more| Arc::clone(&self.entries_left).try_acquire_many_owned(more).ok());
        (own + taken.as_ref().map_or(0, |_| more), taken)
    }

    /// Bytes of arguments and environment, which each instance has of its own.
    fn copied(&self) -> u64 {
        let env = self.env.iter().map(|(name, value)| name.len() + value.len());
        self.args.iter().map(String::len).chain(env).sum::<usize>() as u64
    }

    /// No file, variable or address but what the pod and its image give.
    fn wasi(&self, stdout: &Pipe, stderr: &Pipe) -> WasiCtx {
        let mut wasi = WasiCtx::builder();
        wasi.args(&self.args).envs(&self.env).stdout(stdout.clone()).stderr(stderr.clone());
        wasi.max_random_size(RANDOM);
        sockets::allow(&mut wasi);
        if let Some(folder) = &self.working_dir {
            wasi.initial_cwd(folder);
        }
        let mut wasi = wasi.build();
        *wasi.filesystem() = self.prepared.files.clone();
        wasi
    }

    /// The meter of an instance whose task has this place.
    pub(super) fn meter(&self, place: &Arc<Place>) -> Meter {
        Meter::new(Arc::clone(place), Arc::clone(&self.cpu), self.favour.clone())
    }

    /// Writes a line of the host's to the container's stderr, as the guest's runtime would.
    pub(super) async fn complain(&self, text: &str) {
        self.log.line(Stream::Stderr, text).await;
    }
}

impl GuestState {
    pub(super) fn network(&self) -> Arc<PodNetwork> {
        Arc::clone(&self.network)
    }

    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    pub(super) fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    pub(super) fn sockets(&mut self) -> (&mut Sockets, &mut WasiCtx, &mut ResourceTable) {
        (&mut self.sockets, &mut self.wasi, &mut self.table)
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table: &mut self.table, ctx: &mut self.http }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::wasm::tests::sockets::Container;

    #[tokio::test]
    async fn instances_have_their_container_s_entries_together_and_a_few_of_their_own() {
        let mut container = Container::new(1);
        container.guest.entries_left = Arc::new(Semaphore::new(600));
        let place = Arc::default();
        let mut stores: Vec<_> = (0..4).map(|_| container.guest.store(1 << 20, &place).unwrap().0).collect();
        let given: Vec<usize> = stores.iter_mut().map(|store| store.data_mut().table().max_capacity()).collect();
        assert_eq!(given, [512, 344, 128, 128]);
        stores.remove(0);
        assert_eq!(container.guest.store(1 << 20, &place).unwrap().0.data_mut().table().max_capacity(), 512);
    }
}

//! What guests open of their image's files: each file has a place among its container's descriptors, until its last stream is
//! gone, and a folder is read a few entries at a time. The folder that they see as `/` is open once for all of an image.
//!
//! The host's own implementation counts nothing, keeps a folder that a 0.2 guest reads in memory, all of it, and one of the
//! threads that read files for all guests for each that a 0.3 guest reads, for as long as it does not. What does the rest is
//! the host's.

use std::path::Path;
use std::sync::{Arc, Weak};

use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, FutureReader, Linker, Resource, ResourceTable, ResourceType, StreamReader};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemCtx, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types as p2;
use wasmtime_wasi::p3::bindings::filesystem::types as p3;
use wasmtime_wasi::{FsPerms, WasiCtx};

use self::listing::{Entries, Listing};
use super::room::{Room, Taken};
use super::state::GuestState;
use crate::backend::BackendError;

mod listing;

/// The host's interfaces, in the versions that it has them in.
const TYPES_2: &str = "wasi:filesystem/types@0.2.12";
const TYPES_3: &str = "wasi:filesystem/types@0.3.0";

/// What the guests of an image with these files see. All its pods share them: nobody writes there.
pub(super) fn of_image(root: Option<&Path>) -> Result<WasiFilesystemCtx, BackendError> {
    let mut wasi = WasiCtx::builder();
    if let Some(root) = root {
        wasi.preopened_dir(root, "/", FsPerms::ReadOnly).map_err(|error| BackendError::Failed {
            message: "the files of the image cannot be opened".into(),
            source: error.into_boxed_dyn_error(),
        })?;
    }
    Ok(wasi.build().filesystem().clone())
}

/// The files that one instance has open.
pub(super) struct Files {
    /// Places of the container, for all its instances; sockets have them, too.
    room: Arc<Room>,
    /// As many as the container has places at most.
    open: Vec<(Weak<std::fs::File>, Taken)>,
}

impl Files {
    pub(super) fn new(room: Arc<Room>) -> Self {
        Self { room, open: Vec::new() }
    }

    /// A place for one more file, if the container has one left.
    fn place(&mut self) -> Option<Taken> {
        self.forget_closed();
        self.room.take()
    }

    fn opened(&mut self, file: &Arc<std::fs::File>, place: Taken) {
        self.open.push((Arc::downgrade(file), place));
    }

    fn forget_closed(&mut self) {
        self.open.retain(|(file, _)| file.strong_count() > 0);
    }
}

/// Puts these functions in place of the host's.
pub(super) fn replace_in(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(TYPES_2)?;
    types.resource("descriptor", ResourceType::host::<Descriptor>(), close)?;
    types.resource("directory-entry-stream", ResourceType::host::<Listing>(), |mut store, rep| {
        store.data_mut().table().delete(Resource::<Listing>::new_own(rep))?;
        Ok(())
    })?;
    types.func_wrap_async("[method]descriptor.open-at", |store, (folder, follow, path, how, flags)| {
        Box::new(open_2(store, folder, follow, path, how, flags))
    })?;
    types.func_wrap("[method]descriptor.read-directory", read_directory_2)?;
    types.func_wrap_async("[method]directory-entry-stream.read-directory-entry", |store, (listing,)| {
        Box::new(next_2(store, listing))
    })?;
    let mut types = linker.instance(TYPES_3)?;
    types.resource("descriptor", ResourceType::host::<Descriptor>(), close)?;
    types.func_wrap_concurrent("[method]descriptor.open-at", |store, (folder, follow, path, how, flags)| {
        Box::pin(open_3(store, folder, follow, path, how, flags))
    })?;
    types.func_wrap("[method]descriptor.read-directory", read_directory_3)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// A guest is done with a descriptor.
fn close(mut store: StoreContextMut<'_, GuestState>, rep: u32) -> wasmtime::Result<()> {
    let state = store.data_mut();
    state.table().delete(Resource::<Descriptor>::new_own(rep))?;
    state.files().forget_closed();
    Ok(())
}

/// Gives what was opened its place.
fn keep(state: &mut GuestState, opened: &Resource<Descriptor>, place: Taken) -> wasmtime::Result<()> {
    let file = match state.table().get(opened)? {
        Descriptor::File(file) => Arc::clone(&file.file),
        Descriptor::Dir(folder) => Arc::clone(&folder.dir),
    };
    state.files().opened(&file, place);
    Ok(())
}

type Opened<E> = wasmtime::Result<(Result<Resource<Descriptor>, E>,)>;

async fn open_2(
    mut store: StoreContextMut<'_, GuestState>,
    folder: Resource<Descriptor>,
    follow: p2::PathFlags,
    path: String,
    how: p2::OpenFlags,
    flags: p2::DescriptorFlags,
) -> Opened<p2::ErrorCode> {
    let state = store.data_mut();
    let Some(place) = state.files().place() else { return Ok((Err(p2::ErrorCode::InsufficientMemory),)) };
    match p2::HostDescriptor::open_at(&mut state.filesystem(), folder, follow, path, how, flags).await {
        Ok(opened) => keep(state, &opened, place).map(|()| (Ok(opened),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

async fn open_3(
    store: &Accessor<GuestState>,
    folder: Resource<Descriptor>,
    follow: p3::PathFlags,
    path: String,
    how: p3::OpenFlags,
    flags: p3::DescriptorFlags,
) -> Opened<p3::ErrorCode> {
    let Some(place) = store.with(|mut access| access.get().files().place()) else {
        return Ok((Err(p3::ErrorCode::InsufficientMemory),));
    };
    let files = store.with_getter::<WasiFilesystem>(GuestState::filesystem);
    let opened =
        <WasiFilesystem as p3::HostDescriptorWithStore<GuestState>>::open_at(&files, folder, follow, path, how, flags);
    match opened.await {
        Ok(opened) => store.with(|mut access| keep(access.get(), &opened, place)).map(|()| (Ok(opened),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

/// A folder's entries, or why it cannot be read.
fn list<E>(
    state: &mut GuestState,
    folder: &Resource<Descriptor>,
    not_one: E,
    too_many: E,
) -> wasmtime::Result<Result<Listing, E>> {
    let Descriptor::Dir(folder) = state.table().get(folder)? else { return Ok(Err(not_one)) };
    let folder = Arc::clone(&folder.dir);
    Ok(state.files().place().map(|place| Listing::new(folder, place)).ok_or(too_many))
}

fn read_directory_2(
    mut store: StoreContextMut<'_, GuestState>,
    (folder,): (Resource<Descriptor>,),
) -> wasmtime::Result<(Result<Resource<Listing>, p2::ErrorCode>,)> {
    let state = store.data_mut();
    Ok((match list(state, &folder, p2::ErrorCode::NotDirectory, p2::ErrorCode::InsufficientMemory)? {
        Ok(listing) => Ok(state.table().push(listing)?),
        Err(code) => Err(code),
    },))
}

async fn next_2(
    mut store: StoreContextMut<'_, GuestState>,
    listing: Resource<Listing>,
) -> wasmtime::Result<(Result<Option<p2::DirectoryEntry>, p2::ErrorCode>,)> {
    let table: &mut ResourceTable = store.data_mut().table();
    let listing = table.get_mut(&listing)?;
    let next = std::future::poll_fn(|cx| listing.poll_next(cx)).await;
    Ok((next.map(|entry| entry.map(Into::into)).map_err(|error| p2::ErrorCode::from(&error)),))
}

type Listed3 = (StreamReader<p3::DirectoryEntry>, FutureReader<Result<(), p3::ErrorCode>>);

fn read_directory_3(
    mut store: StoreContextMut<'_, GuestState>,
    (folder,): (Resource<Descriptor>,),
) -> wasmtime::Result<(Listed3,)> {
    let listed = list(store.data_mut(), &folder, p3::ErrorCode::NotDirectory, p3::ErrorCode::InsufficientMemory)?;
    let (entries, ended) = Entries::of(listed);
    Ok(((StreamReader::new(&mut store, entries)?, FutureReader::new(&mut store, ended)?),))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::wasm::engine::Engine;

    #[test]
    fn what_is_replaced_is_what_the_host_has() {
        let engine = Engine::new().unwrap();
        let mut linker = Linker::<GuestState>::new(engine.raw());
        wasmtime_wasi::p2::bindings::filesystem::types::add_to_linker::<_, WasiFilesystem>(
            &mut linker,
            GuestState::filesystem,
        )
        .unwrap();
        wasmtime_wasi::p3::filesystem::add_to_linker(&mut linker).unwrap();
        let functions = ["[method]descriptor.open-at", "[method]descriptor.read-directory"];
        for types in [TYPES_2, TYPES_3] {
            let mut types = linker.instance(types).unwrap();
            for name in functions {
                assert!(types.func_wrap(name, |_, (): ()| Ok(())).is_err(), "{name}");
            }
            assert!(types.resource("descriptor", ResourceType::host::<Descriptor>(), |_, _| Ok(())).is_err());
        }
        let mut types = linker.instance(TYPES_2).unwrap();
        let next = "[method]directory-entry-stream.read-directory-entry";
        assert!(types.func_wrap(next, |_, (): ()| Ok(())).is_err());
        assert!(types.resource("directory-entry-stream", ResourceType::host::<Listing>(), |_, _| Ok(())).is_err());
    }
}

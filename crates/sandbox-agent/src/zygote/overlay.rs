//! Makes the overlays of a sandbox, with the zygote's rights, so that their layers are out of its reach.
//!
//! Every layer is a copy of a host mount; as real root, with the owners of its files mapped into the sandbox's range.
//! The copies are attached only in the zygote's own namespace and only until the overlays exist: kernels before 6.15 refuse
//! layers that are attached nowhere, and the sandbox must never see a writable one.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use sandbox_agent::protocol::Blob;
use sandbox_agent::protocol::zygote::{self, Lower, Overlay};

use super::failure::{During as _, Failure};
use super::stage::{self, Stage};
use crate::sys::credential;
use crate::sys::mount::{self, NewFilesystem, attribute};

/// How layers of both kinds show the owners of their files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owners<'a> {
    /// Unless they are shown as they are, which is all that an ordinary user can do.
    pub(crate) maps: Option<Maps<'a>>,
    /// First id of the sandbox's range.
    pub(crate) base: u32,
}

/// User namespaces that say whose files on disk are whose inside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maps<'a> {
    /// From ids `0..` on disk to the sandbox's range.
    pub(crate) lower: BorrowedFd<'a>,
    /// From the storage range to the sandbox's range.
    pub(crate) store: BorrowedFd<'a>,
}

/// A layer of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layer<'a> {
    /// On the host.
    path: &'a Blob,
    /// Whether its files belong to the storage range.
    stored: bool,
    writable: bool,
}

impl<'a> Layer<'a> {
    fn lower(lower: &'a Lower) -> Self {
        Self {
            path: &lower.path,
            stored: lower.stored,
            writable: false,
        }
    }

    fn store(path: &'a Blob) -> Self {
        Self {
            path,
            stored: true,
            writable: true,
        }
    }
}

/// The layers of one sandbox.
#[derive(Debug)]
struct Layers<'a> {
    /// Whether the overlays' own marks are attributes that users can set; those that only root can are not to be had.
    marks_of_users: bool,
    /// By number.
    numbers: Vec<Layer<'a>>,
    attached: Attached,
}

/// Layers are attached. Dropping it detaches them, which is not needed any more once the overlays exist, and takes
/// long enough to be put off until the sandbox is complete.
#[derive(Debug)]
pub(crate) struct Attached(());

/// Makes the overlays in order and hands each, detached, to `deliver`.
pub(crate) fn make(
    stage: &Stage,
    overlays: &[Overlay],
    generation: u32,
    owners: Owners<'_>,
    mut deliver: impl FnMut(OwnedFd) -> Result<(), Failure>,
) -> Result<Attached, Failure> {
    let layers = Layers::attach(stage, overlays, owners)?;
    let _as_owner = ActingAs::owner(owners.base)?;
    for overlay in overlays {
        deliver(layers.combine(overlay, generation)?)?;
    }
    Ok(layers.attached)
}

impl<'a> Layers<'a> {
    /// Attaches every layer of `overlays` once.
    fn attach(stage: &Stage, overlays: &'a [Overlay], owners: Owners<'_>) -> Result<Self, Failure> {
        let mut wanted: Vec<Layer<'_>> = Vec::new();
        for overlay in overlays {
            let lowers = overlay.lowers.iter().map(Layer::lower);
            for layer in lowers.chain([Layer::store(&overlay.store)]) {
                if !wanted.contains(&layer) {
                    wanted.push(layer);
                }
            }
        }
        if wanted.len() > stage::MAX_LAYERS {
            return Err(Failure::invalid(format!(
                "check the overlays: more than {} layers",
                stage::MAX_LAYERS
            )));
        }
        let mounts = stage.visit_host(|| {
            wanted
                .iter()
                .map(|&layer| open(layer, owners))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let place = path(stage::LAYERS.to_owned())?;
        // One mount to hold them all: taking it away takes all of them away.
        let holder = mount::clone_tree(&place).during("make a place for the layers")?;
        mount::set_attributes(holder.as_fd(), 0, None).during("make a place for the layers")?;
        mount::attach_at(holder.as_fd(), &place).during("make a place for the layers")?;
        let attached = Attached(());
        for (index, mount) in mounts.iter().enumerate() {
            mount::attach_at(mount.as_fd(), &path(layer_path(index))?).during("attach a layer")?;
        }
        Ok(Self {
            marks_of_users: owners.maps.is_none(),
            numbers: wanted,
            attached,
        })
    }

    /// Makes one overlay of attached layers.
    fn combine(&self, overlay: &Overlay, generation: u32) -> Result<OwnedFd, Failure> {
        let target = || String::from_utf8_lossy(&overlay.target.0).into_owned();
        let place = |wanted: Layer<'_>| {
            let index = self.numbers.iter().position(|layer| *layer == wanted);
            index.map(layer_path).unwrap_or_default()
        };
        let lowers = overlay.lowers.iter().map(Layer::lower);
        let lowers: Vec<String> = lowers.map(place).collect();
        let store = place(Layer::store(&overlay.store));
        let inside = |name: &Blob| path(format!("{store}/{}", String::from_utf8_lossy(&name.0)));
        let options = [
            (c"source", path(zygote::source(generation))?),
            (c"lowerdir", path(lowers.join(":"))?),
            (c"upperdir", inside(&overlay.upper)?),
            (c"workdir", inside(&overlay.work)?),
            // What a host's module options could change otherwise.
            (c"redirect_dir", c"nofollow".to_owned()),
            (c"metacopy", c"off".to_owned()),
            (c"index", c"off".to_owned()),
            (c"xino", c"auto".to_owned()),
        ];
        let mount = NewFilesystem::open(c"overlay")
            .and_then(|fs| {
                options
                    .iter()
                    .try_for_each(|(key, value)| fs.set(key, value))?;
                if self.marks_of_users {
                    fs.enable(c"userxattr")?;
                }
                // Sandboxes do not outlive the machine's power, so nothing in them waits for the disk: not fsync(2),
                // and not the sandbox's end, which would write out all that the whole host has not written yet.
                fs.enable(c"volatile")?;
                fs.mount(attribute::NO_DEV)
            })
            .during_with(|| format!("mount the overlay of {}", target()))?;
        // Where the upper directory cannot be written, the kernel makes a read-only overlay and reports success.
        if mount::is_read_only(mount.as_fd())
            .during_with(|| format!("look at the overlay of {}", target()))?
        {
            return Err(Failure::invalid(format!(
                "mount the overlay of {}: it came out read-only; are upper and work owned as they must be?",
                target()
            )));
        }
        Ok(mount)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Fails only for want of memory. The next sandbox would then see the layers until its root is entered,
        // which is before any foreign code runs.
        let _ = path(stage::LAYERS.to_owned()).map(|place| mount::detach(&place));
    }
}

/// Acts on files as the owner of the sandbox's root, without whom the overlay could not write its upper directory.
/// Dropping it goes back to real root.
#[derive(Debug)]
pub(crate) struct ActingAs(());

impl ActingAs {
    /// Begins to act as user and group `base` of the host.
    pub(crate) fn owner(base: u32) -> Result<Self, Failure> {
        let acting = Self(());
        credential::act_on_files_as(base).during("act as the owner of the upper directories")?;
        Ok(acting)
    }
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        // Ids and capabilities that real root may always take back.
        let _ = credential::act_on_files_as(0);
    }
}

/// Copies the mount of a host directory, with its owners mapped if there are maps.
fn open(layer: Layer<'_>, owners: Owners<'_>) -> Result<OwnedFd, Failure> {
    let name = || String::from_utf8_lossy(&layer.path.0).into_owned();
    let host_path =
        CString::new(layer.path.0.as_slice()).map_err(|_| Failure::invalid("open a layer"))?;
    let mount =
        mount::clone_tree(&host_path).during_with(|| format!("open the layer {}", name()))?;
    let mut attributes = attribute::NO_SUID | attribute::NO_DEV;
    if !layer.writable {
        attributes |= attribute::READ_ONLY;
    }
    let map = owners
        .maps
        .map(|maps| if layer.stored { maps.store } else { maps.lower });
    mount::set_attributes(mount.as_fd(), attributes, map)
        .during_with(|| format!("map the owners of the layer {}", name()))?;
    Ok(mount)
}

fn layer_path(index: usize) -> String {
    format!("{}/{index}", stage::LAYERS)
}

/// A path or option made by this module.
fn path(text: String) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::invalid("name the layers of an overlay"))
}

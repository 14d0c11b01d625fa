//! Where commands from the bus arrive.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;

use tracing::debug;
use tracing::info;

use crate::bus::CommandKind;
use crate::bus::CommandSink;
use crate::bus::RemoteCommand;
use crate::daemon::door::Door;

/// Takes commands before there is a door, and drops them: the bus is made first, because the door
/// tells it how it is.
#[derive(Default)]
pub struct LateSink(OnceLock<Weak<Door>>);

impl LateSink {
    /// The door; told once.
    pub fn set(&self, door: &Arc<Door>) {
        let _ = self.0.set(Arc::downgrade(door));
    }
}

impl CommandSink for LateSink {
    fn command(&self, command: RemoteCommand) {
        if let Some(door) = self.0.get().and_then(Weak::upgrade) {
            door.command(command);
        } else if command.kind == CommandKind::Identify {
            identify(command.by.as_deref());
        }
    }
}

/// Says which device this is.
pub fn identify(by: Option<&str>) {
    info!("this is the device that was asked to identify");
    debug!(by, "asked to identify by");
}

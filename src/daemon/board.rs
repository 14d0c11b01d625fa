//! Starts the watch over the board.

use std::path::Path;
use std::sync::Arc;

use crate::board::FrameLimit;
use crate::board::Identity;
use crate::board::sysfs;
use crate::board::sysfs::SysfsBoard;
use crate::board::watch::Watch;
use crate::board::watch::WatchParts;
use crate::clock::Clock;
use crate::config::Config;

/// Where the kernel's files are.
const ROOT: &str = "/";

/// A watch over this board, and the limit of frames that it sets.
pub fn watch(config: &Config, clock: Arc<dyn Clock>) -> (Watch, Arc<FrameLimit>) {
    let root = Path::new(ROOT);
    let found = sysfs::identify(root);
    let limit = Arc::new(FrameLimit::default());
    let watch = Watch::new(WatchParts {
        identity: Identity { kind: config.board.kind.unwrap_or(found.kind), ..found },
        config: config.board,
        sensors: Box::new(SysfsBoard::new(root)),
        frames_per_second: config.cameras.iter().map(|camera| camera.fps).max().unwrap_or(1),
        clock,
        limit: Arc::clone(&limit),
    });
    (watch, limit)
}

//! The doors of one node to the world, opened once by whoever starts it: the program, or the simulator.

use model::entropy::Entropy;
use model::time::Clock;
use std::sync::Arc;
use std::time::Duration;
use storage::Engine;
use transport::Link;

/// Time, entropy, disk and network of one node.
#[derive(Clone)]
pub struct World {
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Disks.
    pub engine: Arc<dyn Engine>,
    /// Network.
    pub link: Arc<dyn Link>,
}

/// The machine's clocks.
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// Starts counting now.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn wall_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        use rand::TryRng as _;
        rand::rngs::SysRng.try_fill_bytes(bytes).expect("the operating system has randomness");
    }
}

// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor

/// Work on a snapshot that is under way; the main thread goes on with it in pieces.
final class SnapshotWork {
  /// What is waited for, or done next.
  enum Step {
    /// The launcher's file.
    case openingFile
    /// The drives forget an older snapshot of the name.
    case replacingDisks
    /// The drives take theirs; then the machine is written down.
    case savingDisks
    case savingMemory(StateFileWriter, MemorySaver)
    case committingFile
    /// The file is read through, and nothing changed.
    case verifying(StateFileReader, StateCollector, MemoryLoader)
    case checkingDisks(SavedState)
    case applyingDisks(SavedState)
    case endingDevices(SavedState)
    case loadingMemory(SavedState, StateFileReader, MemoryLoader)
    /// New processes of some devices, with the numbers of the old ones.
    case startingDevices([String: UInt32])
    case deletingDisks
    /// The drives are done; this says whether one had it.
    case deletingFile(Bool)
    case listingDisks
    case listingFiles(DriveSnapshotReply)
    case makingOverlay
    case usingOverlay
    /// It has failed for this reason; the drives forget what they have taken.
    case undoing(String)
  }

  let request: SnapshotRequest
  /// Who is answered at the end, unless it is a job.
  let reply: MachineControl.PendingReply?
  var step: Step
  /// Whether the machine ran before.
  var wasRunning = false
  var file: Descriptor?
  /// The number of the last request to the launcher, and its answer.
  var awaited: UInt32 = 0
  var answer: Packet?
  /// The request to vmdev-ide that is under way.
  var ask: DeviceLink.Ask?
  /// The number of vmdev-ide's process before an overlay is used.
  var oldProcess: UInt32 = 0
  /// When what is waited for is given up, on the host's clock.
  var end: UInt64 = 0
  /// When the snapshot is taken.
  let seconds: UInt32
  let nanoseconds: UInt32

  /// How long the launcher, the drives and new processes may take, in nanoseconds.
  static let patience: UInt64 = 120_000_000_000
  /// How much memory is looked at before others have their turn.
  static let budget = 16 << 20

  init(_ request: SnapshotRequest, _ reply: MachineControl.PendingReply?, _ step: Step) {
    self.request = request
    self.reply = reply
    self.step = step
    let now = HostClock.unixNanoseconds()
    seconds = UInt32(truncatingIfNeeded: now / 1_000_000_000)
    nanoseconds = UInt32(now % 1_000_000_000)
  }

  /// Whether there is something to do at once.
  var isBusy: Bool {
    switch step {
    case .savingMemory, .verifying, .loadingMemory: true
    default: false
    }
  }

  /// Whether the present machine is lost when it fails now.
  var isPastReturn: Bool {
    switch step {
    case .applyingDisks, .endingDevices, .loadingMemory: true
    // An overlay is in use then, and nothing is lost.
    case .startingDevices: request.action == .load
    default: false
    }
  }

  /// Whether the drives may have taken a snapshot for it.
  var hasTouchedDisks: Bool {
    switch step {
    case .savingDisks, .savingMemory, .committingFile: true
    default: false
    }
  }

  /// What is asked of the drives about this snapshot.
  func drives(
    _ action: DriveSnapshotRequest.Action, clock: UInt64 = 0, isOwn: Bool = true
  ) -> DriveSnapshotRequest {
    DriveSnapshotRequest(
      action, tag: request.tag, seconds: isOwn ? seconds : 0,
      nanoseconds: isOwn ? nanoseconds : 0, clock: clock)
  }
}

// SPDX-License-Identifier: Apache-2.0

internal import DeviceHost
internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import Serial

/// What a port is connected to.
///
/// Output reaches the back end exactly once, whenever the process is killed. A regular file
/// is written at offsets that are part of the state, so writing again changes nothing. A
/// stream has no memory of what it took; there, each chunk passes through a pipe that
/// outlives the process: it is written with one byte more, and spliced on. What is left in
/// the pipe says how much has arrived, and the byte that stays behind says that the chunk
/// was put in at all. Of a socket's peers only one is there at a time, connected by the launcher,
/// which keeps the connection when this process dies; what is sent while there is none is lost,
/// as on an open wire.
struct SerialBackend: DeviceState {
  /// How far the chunk at the head of the queue is.
  private enum Phase {
    /// There is none.
    static let idle: UInt8 = 0
    /// It is to be put into the pipe, or is there.
    static let staged: UInt8 = 1
    /// It has arrived; only the last byte may still be in the pipe.
    static let done: UInt8 = 2
  }

  private let kind: SerialSettings.Backend
  private let start: UInt64
  private var input: Descriptor?
  private var output: Descriptor?
  /// The peer whose input comes when all that its predecessor sent has been read.
  private var successor: Descriptor?
  private let pipe: (reading: Descriptor, writing: Descriptor)?

  // State.
  private var written: UInt64 = 0
  private var phase = Phase.idle
  private var chunk: UInt16 = 0
  /// Input that has been read and not yet received.
  private var waiting: [UInt8] = []

  // Not state: what the pipe holds, once known.
  private var isInPipe = false
  private var isBlocked = false
  private var inputSource = -1
  private var outputSource = -1

  /// A chunk and its last byte go into an empty pipe whole (PIPE_BUF).
  private static let mostChunk = 2048
  private static let mostInput = 64
  /// What an output that is writable and cannot be spliced to takes at once.
  private static let mostCopy = 256
  /// Far beyond any file, and far from an overflow when two of them are added.
  private static let mostOffset: UInt64 = 1 << 60

  init(_ port: SerialSettings.Port, _ rest: inout ArraySlice<Descriptor>) throws(SystemError) {
    guard port.start <= Self.mostOffset else {
      throw SystemError("serial port's file of \(port.start) bytes", 27 /* EFBIG */)
    }
    kind = port.backend
    start = port.start
    func next() throws(SystemError) -> Descriptor {
      guard let descriptor = rest.popFirst() else {
        throw SystemError("serial port without its descriptor", 9 /* EBADF */)
      }
      return descriptor
    }
    switch kind {
    case .null: (input, output, pipe) = (nil, nil, nil)
    case .file: (input, output, pipe) = (nil, try next(), nil)
    case .streams:
      input = try next()
      output = try next()
      pipe = (try next(), try next())
    case .duplex:
      let both = try next()
      (input, output) = (both, both)
      pipe = (try next(), try next())
    case .socket:
      pipe = (try next(), try next())
      let peer = port.isConnected ? try next() : nil
      (input, output) = (peer, peer)
    }
    if isStream {
      try input?.setNonBlocking(true)
      try output?.setNonBlocking(true)
      try pipe?.reading.setNonBlocking(true)
    }
  }

  /// Whether output passes through the pipe.
  private var isStream: Bool {
    switch kind {
    case .null, .file: false
    case .streams, .duplex, .socket: true
    }
  }

  /// Whether peers come and go.
  var hasPeers: Bool { kind == .socket }

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("written", &written)
    visitor.field("phase", &phase)
    visitor.field("chunk", &chunk)
    visitor.field("waiting", &waiting, capacity: Self.mostInput)
  }

  /// Finds out what a predecessor left in the pipe.
  mutating func restored() {
    guard let pipe, phase == Phase.staged else { return }
    isInPipe = ((try? pipe.reading.readableCount()) ?? 0) > 0
  }

  // MARK: - Watching

  mutating func watch(_ watcher: Watcher) {
    guard isStream, let pipe else { return }
    // Where there is no peer yet, another descriptor keeps its place.
    inputSource = watcher.add(input ?? pipe.reading, .readable, isOn: false)
    outputSource = watcher.add(output ?? pipe.writing, .writable, isOn: false)
  }

  /// Takes a new peer, after the launcher has seen that the one before it is gone.
  mutating func connect(_ peer: Descriptor, _ watcher: Watcher) {
    guard hasPeers, outputSource >= 0 else { return }
    output = peer
    isBlocked = false
    watcher.set(outputSource, isOn: false)
    watcher.set(outputSource, to: peer)
    if input == nil {
      input = peer
      watcher.set(inputSource, to: peer)
    } else {
      successor = peer
    }
  }

  /// Ends the input of a stream; that of the next peer follows.
  private mutating func endInput(_ watcher: Watcher) {
    input = successor
    successor = nil
    if let input { watcher.set(inputSource, to: input) }
  }

  /// Watches the input only while there is room for it.
  mutating func updateWatch(_ watcher: Watcher) {
    guard inputSource >= 0 else { return }
    watcher.set(inputSource, isOn: input != nil && waiting.isEmpty)
  }

  mutating func ready(_ sources: UInt64, _ watcher: Watcher) {
    if outputSource >= 0, sources & 1 << UInt64(outputSource) != 0 { isBlocked = false }
    guard inputSource >= 0, sources & 1 << UInt64(inputSource) != 0, let input,
      waiting.count < Self.mostInput
    else { return }
    do throws(SystemError) {
      let bytes = try input.read(Self.mostInput - waiting.count)
      waiting += bytes
      // The end of the input: the port stays, and nothing comes any more.
      if bytes.isEmpty { endInput(watcher) }
    } catch {
      if !error.isNotReady && !error.isInterrupted { endInput(watcher) }
    }
  }

  /// Looks whether the output takes more, for a loop in which nothing watches it.
  mutating func lookAtOutput() {
    guard isBlocked, let output else { return }
    var poller = Poller()
    poller.add(output, .writable)
    if let count = try? poller.wait(timeout: 2_000_000), count > 0 { isBlocked = false }
  }

  /// Takes the next byte of input.
  mutating func nextInput() -> UInt8? { waiting.isEmpty ? nil : waiting.removeFirst() }

  // MARK: - Output

  /// Moves what the guest sent on; returns whether the state has changed.
  mutating func pump(_ uart: inout UART16550, _ watcher: Watcher) -> Bool {
    guard uart.hasOutgoing || phase != Phase.idle else { return false }
    switch kind {
    case .null:
      uart.dropOutgoing(UART16550.queueCapacity)
      return true
    case .file: return writeFile(&uart)
    case .streams, .duplex, .socket: return pumpStream(&uart, watcher)
    }
  }

  private mutating func writeFile(_ uart: inout UART16550) -> Bool {
    let bytes = uart.outgoing(UART16550.queueCapacity)
    do throws(SystemError) {
      guard written <= Self.mostOffset else { throw SystemError("pwrite", 27 /* EFBIG */) }
      try output?.write(bytes, at: start + written)
    } catch {
      // A full file system loses output rather than stopping the guest; it is said once.
      if !isBlocked { Log.line("serial output is lost: \(error)", .warning) }
      isBlocked = true
    }
    written &+= UInt64(bytes.count)
    uart.dropOutgoing(bytes.count)
    return true
  }

  private mutating func pumpStream(_ uart: inout UART16550, _ watcher: Watcher) -> Bool {
    guard let pipe, !isBlocked else { return false }
    guard let output else {
      dropOutput(&uart, pipe.reading)
      return true
    }
    switch phase {
    case Phase.staged:
      do throws(SystemError) {
        if !isInPipe {
          try pipe.writing.writeAll(uart.outgoing(Int(chunk)) + [0])
          isInPipe = true
        }
        var left = try pipe.reading.readableCount() - 1
        while left > 0 { left -= try move(pipe.reading, output, left) }
      } catch {
        if error.isInterrupted { return true }
        if error.isNotReady {
          isBlocked = true
          watcher.set(outputSource, isOn: true)
          return false
        }
        // Nobody reads any more: what the guest sends is dropped, as on an open wire.
        _ = try? pipe.reading.read(Self.mostChunk)
      }
      watcher.set(outputSource, isOn: false)
      uart.dropOutgoing(Int(chunk))
      written &+= UInt64(chunk)
      phase = Phase.done
      return true
    default:
      if let left = try? pipe.reading.readableCount(), left > 0 {
        _ = try? pipe.reading.read(left)
      }
      isInPipe = false
      let bytes = uart.outgoing(Self.mostChunk)
      phase = bytes.isEmpty ? Phase.idle : Phase.staged
      chunk = UInt16(bytes.count)
      return true
    }
  }

  /// Drops what the guest sent: nobody is connected.
  private mutating func dropOutput(_ uart: inout UART16550, _ pipe: Descriptor) {
    if let left = try? pipe.readableCount(), left > 0 { _ = try? pipe.read(left) }
    isInPipe = false
    phase = Phase.idle
    chunk = 0
    uart.dropOutgoing(UART16550.queueCapacity)
  }

  /// Splices on, or copies where the output cannot be spliced to (a file opened to append).
  private func move(_ pipe: Descriptor, _ output: Descriptor, _ count: Int) throws(SystemError)
    -> Int
  {
    do {
      return try pipe.splice(to: output, count: count)
    } catch  where error.number == 22 /* EINVAL */ {
      // Only what the output takes for sure leaves the pipe.
      var poller = Poller()
      poller.add(output, .writable)
      guard try poller.wait(timeout: 0) > 0 else { throw SystemError("write", 11 /* EAGAIN */) }
      let bytes = try pipe.read(min(count, Self.mostCopy))
      try output.writeAll(bytes)
      return bytes.count
    }
  }
}

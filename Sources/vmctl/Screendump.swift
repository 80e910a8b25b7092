// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceProtocol
import LinuxSystem
import Monitor
import Picture

struct Screendump: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write a picture of a machine's screen, or its text.")
  @OptionGroup var machine: MachineName
  @Argument(help: "The picture to write: NAME.png or NAME.ppm.")
  var file: String?
  @Flag(help: "Print the screen's text, when it is in a text mode.")
  var text = false
  @Flag(help: "Print the screen's size and text as one JSON object.")
  var json = false

  private static let byteCount = 16 << 20

  func validate() throws {
    guard file != nil || text || json else {
      throw ValidationError("a FILE, --text or --json is needed")
    }
    guard let file, !file.hasSuffix(".png"), !file.hasSuffix(".ppm") else { return }
    throw ValidationError("\(file): accepted: a name that ends in .png or .ppm")
  }

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      let client = try machine.connect()
      let memory: Descriptor
      let mapping: Mapping
      do throws(SystemError) {
        memory = try MemoryFile.make("screendump", byteCount: Self.byteCount)
        mapping = try Mapping(memory, byteCount: Self.byteCount, .readWrite)
      } catch {
        throw ControlClient.Failure("\(error)")
      }
      let screen: ScreendumpReply = try client.ask(
        .screendump, ScreendumpRequest(byteCount: UInt32(Self.byteCount)), [memory])
      if let file { try write(screen, mapping, to: file) }
      if json {
        print(
          "{\"width\":\(screen.width),\"height\":\(screen.height),"
            + "\"text\":\(StatusText.quoted(screen.text))}")
      } else if text {
        guard !screen.text.isEmpty else {
          throw ControlClient.Failure("the screen is in a graphics mode, or empty; it has no text")
        }
        print(VisibleText.escape(screen.text, keepsLines: true))
      }
    }
  }

  private func write(_ screen: ScreendumpReply, _ memory: Mapping, to path: String)
    throws(ControlClient.Failure)
  {
    let width = Int(screen.width)
    let height = Int(screen.height)
    guard width > 0, height > 0 else {
      throw ControlClient.Failure("the screen is off; there is nothing to write")
    }
    // Both are at most 4096, so the product cannot overflow.
    guard width * height * 4 <= Self.byteCount else {
      throw ControlClient.Failure("the reply's picture of \(width) by \(height) is too large")
    }
    let row: (Int, inout [UInt8]) -> Void = { index, line in
      let pixels = memory.bytes(at: index * width * 4, count: width * 4)
      for place in 0..<width {
        line[3 * place] = pixels[4 * place + 2]
        line[3 * place + 1] = pixels[4 * place + 1]
        line[3 * place + 2] = pixels[4 * place]
      }
    }
    let bytes: [UInt8]
    do throws(PictureError) {
      bytes =
        path.hasSuffix(".png")
        ? try PNG.encode(width: width, height: height, row: row)
        : try PPM.encode(width: width, height: height, row: row)
    } catch {
      throw ControlClient.Failure("\(error)")
    }
    do throws(SystemError) {
      try Self.replace(path, with: bytes)
    } catch {
      throw ControlClient.Failure("\(error)")
    }
  }

  /// Writes a file beside its place and moves it there, so that nobody sees half of it.
  private static func replace(_ path: String, with bytes: [UInt8]) throws(SystemError) {
    let temporary = "\(path).\(ThisProcess.id).part"
    let file = try Files.open(temporary, [.writeOnly, .create, .exclusive], permissions: 0o644)
    do throws(SystemError) {
      try file.writeAll(bytes)
      try Files.rename(temporary, to: path)
    } catch {
      try? Files.remove(temporary)
      throw error
    }
  }
}

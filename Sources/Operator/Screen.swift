// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor
internal import Picture

/// Pictures of the screen.
enum Screen {
  private static let byteCount = 16 << 20

  /// Does `screendump`.
  static func dump(
    _ machine: any MachineAccess, _ arguments: [String: JSONValue]
  ) throws(CommandError) {
    // There is one screen, which no command names.
    if let device = arguments["device"]?.string {
      throw CommandError("Device '\(device)' not found", .deviceNotFound)
    }
    guard arguments["head"] == nil else {
      throw CommandError("'head' must be specified together with 'device'")
    }
    let path = arguments["filename"]?.string ?? ""
    let isPNG = arguments["format"]?.string == "png"
    let picture = try draw(machine, isPNG: isPNG)
    let file = try machine.makeFile(path)
    do throws(SystemError) {
      try file.writeAll(picture)
    } catch {
      throw CommandError("\(error)")
    }
  }

  private static func draw(_ machine: any MachineAccess, isPNG: Bool) throws(CommandError)
    -> [UInt8]
  {
    let memory: Descriptor
    let mapping: Mapping
    do throws(SystemError) {
      memory = try MemoryFile.make("screendump", byteCount: byteCount)
      mapping = try Mapping(memory, byteCount: byteCount, .readWrite)
    } catch {
      throw CommandError("\(error)")
    }
    let screen = try machine.ask(
      .screendump, ScreendumpRequest(byteCount: UInt32(byteCount)), [memory],
      as: ScreendumpReply.self)
    let width = Int(screen.width)
    let height = Int(screen.height)
    guard width > 0, height > 0, width * height * 4 <= byteCount else {
      throw CommandError("the screen is off; there is nothing to write")
    }
    let row: (Int, inout [UInt8]) -> Void = { index, line in
      let pixels = mapping.bytes(at: index * width * 4, count: width * 4)
      for place in 0..<width {
        line[3 * place] = pixels[4 * place + 2]
        line[3 * place + 1] = pixels[4 * place + 1]
        line[3 * place + 2] = pixels[4 * place]
      }
    }
    do throws(PictureError) {
      return isPNG
        ? try PNG.encode(width: width, height: height, row: row)
        : try PPM.encode(width: width, height: height, row: row)
    } catch {
      throw CommandError("\(error)")
    }
  }
}

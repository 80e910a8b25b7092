// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Testing

extension SystemTests {
  @Suite("memtest86+")
  struct MemtestTests {
    private static let disc = "\(Requirements.repository)/.build/guests/memtest.iso"
    /// The test that says that those before it are through: addresses, own addresses, and moving
    /// inversions of ones and of eight bits.
    private static let last = 5

    /// The number that follows a title on the screen, in the same line.
    private func number(_ title: String, on screen: String) -> Int? {
      guard let place = screen.range(of: title) else { return nil }
      let line = screen[place.upperBound...].prefix { !$0.isNewline }
      return line.split(separator: " ").first.flatMap { Int($0) }
    }

    @Test(
      "it boots from its disc, and its first tests find no error", .timeLimit(.minutes(10)),
      .enabled(
        if: FileManager.default.fileExists(atPath: disc),
        "missing: \(disc) (deploy/fetch-kernel memtest86+ \(disc))"))
    func firstTests() throws {
      let scratch = try Scratch()
      var file = MachineFile(accelerator: "soft", memory: "16MiB")
      file.drives = [("ide1.0", Self.disc, "raw")]
      file.driveLines = ["media = \"cdrom\"", "readonly = true"]
      file.extra = "[boot]\norder = [\"cdrom\"]"
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      var seen: Set<Int> = []
      var screen = ""
      let isThrough = machine.waits(420) {
        HostClock.sleep(500_000_000)
        screen = (try? machine.screen()) ?? ""
        if let test = number("Test #", on: screen) { seen.insert(test) }
        return seen.contains { $0 >= Self.last } || (number("Errors:", on: screen) ?? 0) > 0
      }
      #expect(isThrough, "\(screen)\n\(machine.errors)")
      #expect(number("Errors:", on: screen) == 0, "\(screen)")
      #expect(screen.contains("Memtest86+") && screen.contains("Bulkhead software CPU"))
      // Quick tests may come and go between two looks; those that take long may not.
      #expect(seen.isSuperset(of: [3, 4]), "\(seen)")
    }
  }
}

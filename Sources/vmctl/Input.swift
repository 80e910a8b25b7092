// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceProtocol
import LinuxSystem
import Monitor
import PS2

struct SendKey: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sendkey",
    abstract: "Press and release keys.",
    discussion: """
      Each KEYS is one key or several held together: a, ret, f12, shift-a, ctrl-alt-delete. \
      Names are those of QMP's send-key.
      """)
  @OptionGroup var machine: MachineName
  @Argument(help: "The keys, one after the other.")
  var keys: [String]

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      var strokes: [[InputRequest.Key]] = []
      for text in keys {
        guard let chord = KeyStrokes.chord(text), chord.count <= 16 else {
          throw ControlClient.Failure("\"\(VisibleText.escape(text))\" is no combination of keys")
        }
        for key in chord where Key(name: key.name) == nil {
          throw ControlClient.Failure(
            "there is no key \"\(VisibleText.escape(key.name))\"; accepted: names such as a, 1, ret, "
              + "spc, esc, tab, f1, up, delete, ctrl, alt, shift, kp_enter")
        }
        strokes.append(chord)
      }
      try Typist.type(strokes, machine)
    }
  }
}

struct TypeText: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "type", abstract: "Type text on a US keyboard.")
  @OptionGroup var machine: MachineName
  @Argument(help: "The text; a line end presses the return key.")
  var text: String

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      var strokes: [[InputRequest.Key]] = []
      for character in text {
        guard let stroke = KeyStrokes.character(character) else {
          throw ControlClient.Failure(
            "a US keyboard has no \"\(VisibleText.escape(String(character)))\"; nothing was typed")
        }
        strokes.append(stroke)
      }
      try Typist.type(strokes, machine)
    }
  }
}

/// Sends key strokes at a pace that a keyboard's buffer of 16 bytes can take.
enum Typist {
  static func type(
    _ strokes: [[InputRequest.Key]], _ machine: MachineName
  ) throws(ControlClient.Failure) {
    let client = try machine.connect()
    for (index, stroke) in strokes.enumerated() {
      if index > 0 { HostClock.sleep(20_000_000) }
      let _: Empty = try client.ask(.input, InputRequest(keys: stroke))
    }
  }
}

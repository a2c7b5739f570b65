"""The labels that sounds get unless others are given: the categories of UCS that can be heard, in own descriptions.

The Universal Category System (universalcategorysystem.com) is in the public domain. Its categories that say nothing of
the sound itself (archived, designed, equipment, foley, movement, objects) are left out, and music has three labels.
"""

from __future__ import annotations

DEFAULT_LABELS = """
Air: a burst of air; steam hissing
Aircraft: an aeroplane flying over; a jet taking off; a helicopter
Alarms: an alarm going off; a siren wailing; a buzzer
Ambience: the background noise of a room; the atmosphere of a place outdoors
Animals: an animal calling; a dog barking; a cat meowing; a cow mooing; a horse neighing
Beeps: an electronic beep
Bells: a bell ringing; a church bell tolling; a gong
Birds: birds singing; a bird chirping; a crow cawing; an owl hooting
Boats: a motor boat; a ship's horn; water lapping at a boat
Bullets: a bullet flying past; a bullet ricocheting
Cartoon: a cartoon sound effect; a comic boing; a slide whistle
Ceramics: dishes clattering; a ceramic plate breaking
Chains: a metal chain rattling
Clocks: a clock ticking
Cloth: cloth rustling; a zip being opened; fabric being torn
Communications: a telephone ringing; a busy tone; a radio being tuned; Morse code
Computers: a computer keyboard; a hard disk working; a printer
Creatures: a monster growling; a dragon roaring; a zombie groaning
Crowds: a crowd of people talking; a crowd cheering; people applauding
Destruction: something collapsing; debris falling; a big crash
Dirt and sand: sand being poured; a shovel in earth
Doors: a door closing; a door creaking open; a knock on a door
Drawers: a drawer sliding open
Drums: a drum being hit; a drum beat; a cymbal crash; a hi-hat
Electricity: electric sparks; an electric arc; mains hum
Explosions: an explosion; a bomb going off
Farts: a fart
Fight: a punch; a fist fight
Fire: a fire crackling; flames burning
Fireworks: fireworks; a firecracker
Food and drink: someone eating; a drink being poured; a pan frying
Footsteps: footsteps; someone running
Games: dice rolling; cards being shuffled; a slot machine; a video game
Geothermal: lava bubbling; a geyser; a volcano
Glass: glass breaking; glasses clinking
Gore: bones breaking; flesh being squashed; blood splattering
Guns: a gunshot; a machine gun firing; a gun being loaded
Horns: a car horn; a train horn; an air horn
Human: a person coughing; a person sneezing; a person laughing; a baby crying; a heartbeat
Ice: ice cracking; ice cubes in a glass
Lasers: a laser gun; a laser beam
Leather: leather creaking
Liquid and mud: mud squelching; slime; something bubbling
Machines: a machine running; factory machinery; a vacuum cleaner; a conveyor belt
Magic: a magic spell; a sparkling chime
Mechanical: a mechanism clicking; gears turning; a lever being pulled; a switch
Metal: metal being struck; a metal impact; metal scraping
Motors: an electric motor; a servo whirring
Music: music playing; a band; an orchestra; a melody; a musical loop
Musical instruments: a note on a piano; a guitar chord; a violin; a flute; a bass note
Natural disaster: an earthquake; an avalanche; a tornado
Paper: paper being crumpled; a page being turned
Plastic: a plastic bag; a plastic bottle
Rain: rain falling; heavy rain
Robots: a robot moving; a robot talking
Rocks: rocks sliding; a stone dropping
Rope: a rope creaking; a whip cracking
Rubber: rubber squeaking; a balloon
Science fiction: a spaceship; an alien sound; a force field; a teleporter
Snow: footsteps in snow
Sports: a ball bouncing; a tennis match; skating
Swooshes: a swoosh; something flying past quickly
Synthesizer: a synthesizer; an electronic bass; an electronic tone; white noise
Tools: a hammer; an electric drill; a saw
Toys: a toy squeaking; a wind-up toy
Trains: a train passing; a train leaving the station; a steam locomotive
User interface: a click of a button; a notification; a menu sound
Vegetation: leaves rustling; a branch breaking; a tree falling
Vehicles: a car driving past; a car engine starting; a truck; a bus; a motorcycle
Voices: a man speaking; a woman speaking; a person screaming; a choir singing
Water: water splashing; a stream flowing; ocean waves; water dripping
Weapons: a sword being drawn; an arrow being shot; swords clashing
Weather: thunder; a storm
Whistles: a person whistling; a referee's whistle; a steam whistle
Wind: wind blowing; wind howling
Windows: a window being opened; blinds being pulled
Wings: a bird flapping its wings; an insect buzzing
Wood: wood being knocked; wood creaking; a wooden impact
"""

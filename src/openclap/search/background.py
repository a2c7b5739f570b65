"""Descriptions of many kinds of sounds: the background that the fit of a query is compared with (`fit.py`)."""

from __future__ import annotations

from itertools import cycle

_SOUNDS = """
a dog barking; a small dog yapping; a cat meowing; a cat purring; a wolf howling; a fox screaming; a lion roaring; a
bear growling; an elephant trumpeting; a horse galloping; a horse neighing; a cow mooing; a sheep bleating; a goat
bleating; a pig grunting; a donkey braying; a rooster crowing; hens clucking; a duck quacking; geese honking; a turkey
gobbling; an owl hooting; a crow cawing; pigeons cooing; a woodpecker drumming; seagulls crying; a songbird singing; a
parrot squawking; a peacock calling; sparrows chirping; crickets chirping; cicadas buzzing; a bee humming; a mosquito
whining; a fly buzzing; frogs croaking; a snake hissing; a rattlesnake; a whale singing; dolphins clicking; a monkey
chattering; a mouse squeaking; a bat squeaking; a deer calling; a hawk screeching; a sea lion barking; a swarm of
insects; wings flapping

rain falling; rain on a tin roof; rain on a tent; heavy rain and wind; thunder rumbling; a thunderclap; wind in trees;
a howling wind; leaves rustling; hail on a window; ocean waves breaking; waves on pebbles; a mountain stream; a river
flowing; a waterfall; water dripping in a cave; a dripping tap; a fountain splashing; a fire crackling; a forest fire;
an avalanche; an earthquake rumbling; rocks sliding; ice cracking; snow crunching under boots; a swamp at night; a
jungle in the morning; a meadow in summer; a desert wind; a geyser erupting; lava bubbling; mud squelching; sand
pouring; a twig snapping; a tree falling; underwater rumbling; bubbles rising

a man speaking; a woman speaking; a child speaking; a man shouting; a woman screaming; a baby crying; a baby laughing;
children playing; a man laughing; a woman laughing; a crowd cheering; a crowd booing; people applauding; people
chatting in a cafe; a whispering voice; a person coughing; a person sneezing; a person snoring; a person breathing; a
person yawning; a person humming; a person whistling; a person singing; a choir singing; a monk chanting; a sports
commentator; a newsreader; a telephone voice; a preacher; an auctioneer; a rapper; a beatboxer; an opera singer; a
yodeller; hiccups; a burp; a kiss; a gasp; a sigh; a heartbeat; footsteps on gravel; footsteps on wood; footsteps on
stairs; high heels on tiles; running feet; clapping hands; fingers snapping; teeth being brushed; someone chewing;
someone gargling; someone slurping soup; a gulp; knuckles cracking; a slap in the face; a punch; a body falling;
clothes rustling; scissors cutting hair

a door slamming; a door creaking; a knock on a door; a doorbell; keys jingling; a lock turning; a drawer closing; a
window opening; curtains being drawn; a chair scraping; a clock ticking; a cuckoo clock; an alarm clock; a kettle
whistling; a pan frying; a pot boiling; dishes clattering; cutlery clinking; glasses clinking; a glass breaking; a
plate smashing; a cork popping; a drink being poured; a can being opened; ice cubes in a glass; a blender; a coffee
machine; a microwave oven; a toaster popping; a refrigerator humming; a dishwasher; a washing machine; a vacuum
cleaner; a hair dryer; an electric shaver; a toilet flushing; a shower running; a bath filling; a broom sweeping; a
mop in a bucket; a zip being closed; paper tearing; paper being crumpled; pages turning; a pencil writing; a stapler;
tape being pulled off; a cardboard box opening; a plastic bag rustling; a balloon bursting; a balloon squeaking; a
match being lit; a lighter flicking; a light switch; coins dropping; a coin spinning; dice rolling; cards being
shuffled; a ball bouncing; a pillow fight; a bed creaking; a rocking chair; a typewriter; a computer keyboard; a mouse
click; a printer printing; a camera shutter; a telephone ringing; a busy tone; a dial tone; a modem connecting; a fax
machine; a radio being tuned; a television in the next room; a vinyl record crackling; a tape rewinding; a cash
register

a car starting; a car passing; a car skidding; a car crash; a car horn; a car door; a truck driving by; a truck
reversing; a bus stopping; a motorcycle revving; a scooter; a bicycle bell; a bicycle chain; a tractor; a police
siren; an ambulance siren; a fire engine; a racing car; a train passing; a train whistle; a steam locomotive; a tram;
an underground train; a level crossing bell; an airliner taking off; a jet fighter; a propeller plane; a helicopter
hovering; a hot air balloon; a drone flying; a rocket launch; a ship's horn; a motor boat; a rowing boat; a sailing
boat creaking; a horse carriage; a skateboard; roller skates; busy traffic; a petrol pump; a tyre being pumped; a
wheel squeaking; windscreen wipers; a car wash

a hammer on a nail; a hammer on an anvil; a hand saw; a circular saw; a chainsaw; an axe chopping wood; an electric
drill; a jackhammer; an angle grinder; sandpaper; a screwdriver; a ratchet; a welding torch; an air compressor; a nail
gun; a lathe; a sewing machine; a loom; a conveyor belt; a factory hall; a steam engine; a diesel generator; an
electric motor; a wind turbine; a pump; a crane; an excavator; a cement mixer; a lawn mower; a leaf blower; a hedge
trimmer; a lift moving; an escalator; a ventilation fan; an air conditioner; gears grinding; a clockwork toy; a chain
rattling; a rope creaking; metal scraping; a metal sheet being shaken; a pipe being hit; a bucket falling; wood
splitting; bricks being stacked; glass being swept up; a spray can; an electric spark; a transformer humming; a neon
light buzzing; a Geiger counter

a gunshot; a machine gun; a cannon firing; an explosion; a distant bomb; fireworks; a firecracker; a ricochet; a sword
fight; an arrow flying; a whip cracking; a shield being struck; armour clanking; a building collapsing; a smoke alarm;
a burglar alarm; a fire alarm; a fog horn; a referee's whistle; a starting pistol; a boxing bell; a tennis match; a
basketball game; a football being kicked; a golf swing; a bowling alley; a billiard shot; table tennis; an ice hockey
game; a swimming pool; a dive into water; a merry-go-round; a roller coaster; a pinball machine; a slot machine

a piano; an electric piano; a harpsichord; a church organ; an accordion; a harmonica; a violin; a cello; a double
bass; a string quartet; a harp; an acoustic guitar; an electric guitar; a distorted guitar; a slide guitar; a bass
guitar; a banjo; a mandolin; a ukulele; a sitar; a koto; a flute; a recorder; a pan flute; an ocarina; a clarinet; an
oboe; a bassoon; a saxophone; a trumpet; a trombone; a tuba; a French horn; a bugle; a bagpipe; a didgeridoo; a kazoo;
a drum kit; a drum roll; a bass drum; a snare drum; a tom; a hi-hat; a crash cymbal; a ride cymbal; a gong; a timpani;
bongos; congas; a djembe; a tabla; a tambourine; maracas; a shaker; a cowbell; a wood block; a triangle; castanets; a
xylophone; a marimba; a vibraphone; a glockenspiel; a music box; tubular bells; a church bell; a hand bell; wind
chimes; sleigh bells; a singing bowl; a kalimba; a steel drum; a theremin; a hurdy-gurdy; a record being scratched

a synthesizer pad; a synthesizer bass; an acid bass line; an arpeggio on a synthesizer; an electronic kick drum; a
drum machine; white noise; pink noise; a sine tone; a sweeping filter; a low drone; a laser shot; a robot voice; a
computer beep; an error sound; a notification sound; a ring tone; a power-up in a game; a game over jingle; a coin in
a video game; a spaceship passing; a teleporter; an alien creature; a force field; a magic spell; a sci-fi door; a
sonar ping; morse code; radio static; a glitch; feedback from a microphone; a whoosh; a swish; a deep boom; a riser;
an impact with a long tail; a cartoon boing; a slide whistle; a comic spring; a monster growling; a ghost moaning; a
dragon's breath; zombies groaning

jazz music; a blues song; rock music; heavy metal music; punk rock; a pop song; hip hop; reggae; disco; techno; house
music; drum and bass; ambient music; a film score; a symphony orchestra; a military march; a waltz; a tango; flamenco;
bluegrass; country music; folk music; Celtic music; Indian classical music; gamelan; African drumming; Latin
percussion; salsa; a lullaby; a Christmas carol; gospel; a barbershop quartet; a circus tune; a fanfare; chiptune
music; lo-fi beats; elevator music; suspenseful music; a wedding march; a national anthem; a barrel organ

an office; a classroom; a library; a hospital ward; a restaurant; a kitchen; a pub; a shopping mall; a market; a
railway station; an airport hall; a street in a city; a village square; a park; a playground; a farm yard; a stable; a
harbour; a beach; a construction site; a church; a cathedral; a concert hall; a stadium; a theatre before the show; a
prison; a mine; a cellar; an attic in a storm; a train compartment; an aeroplane cabin; the inside of a car; a
submarine; a space station; a tunnel; an empty room; a garage; a workshop; a laboratory; a zoo; a funeral; a wedding;
a demonstration; a parade
"""
_FORMS = (
    "{} in the distance",
    "{} close to the microphone",
    "a quiet recording of {}",
    "{} outdoors",
    "a long recording of {}",
    "{} in a large hall",
    "a short sound of {}",
    "{}, repeated",
)


def descriptions() -> tuple[str, ...]:
    """The descriptions: each sound alone, and once in one of several forms."""
    sounds = [" ".join(text.split()) for text in _SOUNDS.replace("\n\n", ";").split(";")]
    return (*sounds, *(form.format(sound) for sound, form in zip(sounds, cycle(_FORMS), strict=False)))

"""Descriptions of many kinds of sounds: the background that the fit of a query is compared with (`fit.py`)."""

from __future__ import annotations

from itertools import cycle

_SOUNDS = """
a dog barking; a cat meowing; a wolf howling; a lion roaring; an elephant trumpeting; a horse neighing; a sheep
bleating; a pig grunting; a rooster crowing; a duck quacking; a turkey gobbling; a crow cawing; a woodpecker drumming;
a songbird singing; a peacock calling; crickets chirping; a bee humming; a fly buzzing; a snake hissing; a whale
singing; a monkey chattering; a bat squeaking; a hawk screeching; a swarm of insects

rain falling; rain on a tent; thunder rumbling; wind in trees; leaves rustling; ocean waves breaking; a mountain
stream; a waterfall; a dripping tap; a fire crackling; an avalanche; rocks sliding; snow crunching under boots; a
jungle in the morning; a desert wind; lava bubbling; sand pouring; a tree falling; bubbles rising

a man speaking; a child speaking; a woman screaming; a baby laughing; a man laughing; a crowd cheering; people
applauding; a whispering voice; a person sneezing; a person breathing; a person humming; a person singing; a monk
chanting; a newsreader; a preacher; a rapper; an opera singer; hiccups; a kiss; a sigh; footsteps on gravel; footsteps
on stairs; running feet; fingers snapping; someone chewing; someone slurping soup; knuckles cracking; a punch; clothes
rustling

a door slamming; a knock on a door; keys jingling; a drawer closing; curtains being drawn; a clock ticking; an alarm
clock; a pan frying; dishes clattering; glasses clinking; a plate smashing; a drink being poured; ice cubes in a
glass; a coffee machine; a toaster popping; a dishwasher; a vacuum cleaner; an electric shaver; a shower running; a
broom sweeping; a zip being closed; paper being crumpled; a pencil writing; tape being pulled off; a plastic bag
rustling; a balloon squeaking; a lighter flicking; coins dropping; dice rolling; a ball bouncing; a bed creaking; a
typewriter; a mouse click; a camera shutter; a busy tone; a modem connecting; a radio being tuned; a vinyl record
crackling; a cash register

a car starting; a car skidding; a car horn; a truck driving by; a bus stopping; a scooter; a bicycle chain; a police
siren; a fire engine; a train passing; a steam locomotive; an underground train; an airliner taking off; a propeller
plane; a hot air balloon; a rocket launch; a motor boat; a sailing boat creaking; a skateboard; busy traffic; a tyre
being pumped; windscreen wipers

a hammer on a nail; a hand saw; a chainsaw; an electric drill; an angle grinder; a screwdriver; a welding torch; a
nail gun; a sewing machine; a conveyor belt; a steam engine; an electric motor; a pump; an excavator; a lawn mower; a
hedge trimmer; an escalator; an air conditioner; a clockwork toy; a rope creaking; a metal sheet being shaken; a
bucket falling; bricks being stacked; a spray can; a transformer humming; a Geiger counter

a gunshot; a cannon firing; a distant bomb; a firecracker; a sword fight; a whip cracking; armour clanking; a smoke
alarm; a fire alarm; a referee's whistle; a boxing bell; a basketball game; a golf swing; a billiard shot; an ice
hockey game; a dive into water; a roller coaster; a slot machine

a piano; a harpsichord; an accordion; a violin; a double bass; a harp; an electric guitar; a slide guitar; a banjo; a
ukulele; a koto; a recorder; an ocarina; an oboe; a saxophone; a trombone; a French horn; a bagpipe; a kazoo; a drum
roll; a snare drum; a hi-hat; a ride cymbal; a timpani; congas; a tabla; maracas; a cowbell; a triangle; a xylophone;
a vibraphone; a music box; a church bell; wind chimes; a singing bowl; a steel drum; a hurdy-gurdy

a synthesizer pad; an acid bass line; an electronic kick drum; white noise; a sine tone; a low drone; a robot voice;
an error sound; a ring tone; a game over jingle; a spaceship passing; an alien creature; a magic spell; a sonar ping;
radio static; feedback from a microphone; a swish; a riser; a cartoon boing; a comic spring; a ghost moaning; zombies
groaning

jazz music; rock music; punk rock; hip hop; disco; house music; ambient music; a symphony orchestra; a waltz;
flamenco; country music; Celtic music; gamelan; Latin percussion; a lullaby; gospel; a circus tune; chiptune music;
elevator music; a wedding march; a barrel organ

an office; a library; a restaurant; a pub; a market; an airport hall; a village square; a playground; a stable; a
beach; a church; a concert hall; a theatre before the show; a mine; an attic in a storm; an aeroplane cabin; a
submarine; a tunnel; a garage; a laboratory; a funeral; a demonstration
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
    """The descriptions: sounds alone and sounds in one of several forms, in turn.

    They are few, because a new index waits until they are embedded.
    """
    sounds = [" ".join(text.split()) for text in _SOUNDS.replace("\n\n", ";").split(";")]
    in_forms = (form.format(sound) for sound, form in zip(sounds[1::2], cycle(_FORMS), strict=False))
    return (*sounds[::2], *in_forms)

"""Words to checked objects: what recipes, studies and commands are told, and who answers to a name."""

from onestage.config.faults import fault as fault
from onestage.config.plain_yaml import RecipeError as RecipeError
from onestage.config.plain_yaml import read_yaml as read_yaml
from onestage.config.plugins import MAY_BE_INFINITE as MAY_BE_INFINITE
from onestage.config.plugins import Choice as Choice
from onestage.config.plugins import Plugin as Plugin
from onestage.config.plugins import Plugins as Plugins
from onestage.config.plugins import module_of as module_of
from onestage.config.plugins import plain as plain
from onestage.config.plugins import plugins_of as plugins_of
from onestage.config.plugins import source_digest as source_digest
from onestage.config.plugins import source_of as source_of
from onestage.config.unread import require_read as require_read
from onestage.config.words import Section as Section
from onestage.config.words import as_numbers as as_numbers
from onestage.config.words import checked as checked
from onestage.config.words import first_line as first_line
from onestage.config.words import named as named
from onestage.config.words import nearest as nearest
from onestage.config.words import number as number
from onestage.config.words import override as override
